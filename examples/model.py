import torch


def model():
    return torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU()).eval()


def inputs():
    return (torch.randn(8, 64),)
