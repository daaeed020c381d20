import torch


def model():
    return torch.nn.Linear(64, 256).eval()


def inputs():  # a tuple, or a dict by argument name
    return (torch.randn(8, 64),)


dynamic_shapes = {"input": {0: torch.export.Dim("batch", min=1, max=128)}}
