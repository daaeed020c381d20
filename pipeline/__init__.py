"""The driver: trace, compile phase by phase, run, compare; one room per step."""
