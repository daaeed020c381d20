"""One of iree-turbine's own operations, which names the value it is given."""

import iree.turbine.ops.iree as ops
import torch


class Traced(torch.nn.Module):
    def forward(self, x):
        y = torch.cos(x)
        ops.trace_tensor("cosine", y)
        return y * 2


def model():
    return Traced().eval()


def inputs():
    return (torch.linspace(-1, 1, 6),)
