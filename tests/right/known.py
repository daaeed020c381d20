"""What the compiler gets wrong without a word, and right programs therefore do not hold.

Each with its smallest form: when that comes out right, the exclusion can go. Imports torch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from right.steps import Chain, Draw, Right, Step, Tensor

#: The constant of the tanh form is cut off: up to 5e-5 off in f32.
GELU = "gelu(x, approximate='tanh')"
#: The input of a depthwise convolution that steps over elements, where it is an output as well, is
#: computed only where the convolution reads it: three of four elements are whatever was there.
STRIDED = "x + 1 and its depthwise convolution by 1x1 with stride 2"
#: Compared as signed.
UNSIGNED = "sort of uint8"
#: Negated in f32.
NEGATED = "neg of int64"
WRONG = (GELU, STRIDED, UNSIGNED, NEGATED)


def program(draw: Draw, number: int) -> Right:
    """The smallest form of number `number` among `WRONG`."""
    name = WRONG[number]
    if name == GELU:
        gelu = Step(name, lambda _, x: F.gelu(x, approximate="tanh"))
        return Right(Chain([gelu], []), (draw.normal(64),))
    if name == UNSIGNED:
        values = torch.tensor([[1, 200, 3, 129]], dtype=torch.uint8)
        return Right(Chain([Step(name, lambda _, x: torch.sort(x).values)], []), (values,))
    if name == NEGATED:
        values = torch.tensor([[2**24 + 1, -3, 2**53 + 1]])
        return Right(Chain([Step(name, lambda _, x: -x)], []), (values,))
    layer = torch.nn.Conv2d(2, 2, 1, stride=2, groups=2, bias=False).requires_grad_(False)

    def convolved(m: Step, x: Tensor) -> Tensor:
        return m.layer(x)

    steps = [Step("x + 1", lambda _, x: x + 1), Step("convolution", convolved, layer=layer)]
    return Right(Chain(steps, [0]), (draw.normal(2, 2, 4, 4),))
