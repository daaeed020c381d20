"""Models of other libraries by name: a small configuration, seeded weights, sample inputs.

rules: fields of a configuration made small. samples: inputs by the names of forward's parameters.
trial: the first configuration and inputs that PyTorch runs. One file a library beside them.
"""
