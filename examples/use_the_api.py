"""Use from a script or a notebook, without the command line: `python examples/use_the_api.py`."""

import torch

import iree_pilot


class Mlp(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(16, 64), torch.nn.Linear(64, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.nn.functional.gelu(self.up(x)))


torch.manual_seed(0)
model, x = Mlp().eval(), torch.randn(4, 16)

program = iree_pilot.trace(model, (x,))
for target in ("llvm-cpu", "hip:gfx942"):
    result = iree_pilot.run(program, target)
    print(f"{target}: {result.status}", result.why)
    if result.failure is not None:
        found = iree_pilot.bisect(program, result, f"repro-mlp-{target.partition(':')[0]}")
        print(found.status, *(one.reproducer.path for one in found.failures if one.reproducer))

# The same judgement for numbers that were computed anywhere else.
print(iree_pilot.compare(program, [model(x).detach().numpy()]).ok)
