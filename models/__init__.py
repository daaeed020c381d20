"""The zoo: which models can be traced, their presets, example inputs and weights."""
