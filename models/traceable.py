"""Record of a traceable model: entry functions, example inputs, shared weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class EntryFunction:
    """One entry function: `module(*args)` returns a flat tuple of tensors.

    dynamic_shapes: as `torch.export` takes it for these arguments, or None where all shapes are
    static. strict: whether torch.export must trace in strict mode; None: whichever of the two
    works. labels: names for people of the last results, which the model itself does not return.
    """

    name: str
    module: nn.Module
    args: tuple[torch.Tensor, ...]
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    dynamic_shapes: Any = None
    strict: bool | None = False
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stored:
    """A tensor that lies in an archive as it is used: the file's absolute path, the name there."""

    file: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Traceable:
    """A model ready to be traced.

    root: holds every weight that the entries use; its `state_dict` gives the weights' names, which
    are those of the family's published checkpoints. Externalise the parameters of `root`, not of
    the entries' modules: all entries then share them, whatever attribute they hold the model under.
    mode: the fake-tensor mode that weights and inputs live in, for models traced without weights.
    stored: weights by name that are used from the files that hold them. made: what gives the other
    weights their values when they are wanted, one at a time, where `root` has none.
    """

    root: nn.Module
    functions: tuple[EntryFunction, ...]
    mode: FakeTensorMode | None = None
    notes: tuple[str, ...] = field(default=())
    stored: Mapping[str, Stored] = field(default_factory=dict)
    made: Mapping[str, Callable[[], torch.Tensor]] = field(default_factory=dict)

    @property
    def weights(self) -> bool:
        """True if the weights have values here; without, there are no reference outputs."""
        return self.mode is None

    def tracing(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which the entries are to be exported."""
        return self.mode or contextlib.nullcontext()

    def only(self, part: str) -> Traceable:
        """Same model with one of its functions."""
        return replace(self, functions=tuple(f for f in self.functions if f.name == part))


class ModelCall(nn.Module):
    """A transformers model as a function of tensors: keyword arguments in, chosen outputs out."""

    def __init__(self, model: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs
        self.outputs = outputs

    def forward(self, *args: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs named at construction, for the inputs named at construction, in order."""
        named = dict(zip(self.inputs, args, strict=True))
        result = self.model(**named, return_dict=True)
        return tuple(result[name] for name in self.outputs)


def single(
    model: nn.Module,
    inputs: dict[str, torch.Tensor],
    outputs: tuple[str, ...],
    *,
    dynamic: dict[str, dict[int, Any]] | None = None,
) -> Traceable:
    """A transformers model, as `made` gives it, as one function, `main`.

    inputs: examples by the names of the model's keyword arguments. outputs: names in the model's
    result. dynamic: dimensions by input; None if all are static.
    """
    names = tuple(inputs)
    entry = EntryFunction(
        name="main",
        module=ModelCall(model, names, outputs).eval(),
        args=tuple(inputs.values()),
        input_names=names,
        output_names=outputs,
        # The arguments of Call.forward are variadic, so export sees one argument: their tuple.
        dynamic_shapes=None if dynamic is None else (tuple(dynamic.get(n) for n in names),),
    )
    return Traceable(root=model, functions=(entry,), mode=mode_of(model))


@contextlib.contextmanager
def made(
    kind: Any,
    config: Any,
    dtype: str,
    seed: int,
    *,
    weights: bool = True,
    model: nn.Module | None = None,
) -> Iterator[tuple[Any, FakeTensorMode | None]]:
    """A transformers model of class `kind`, and within, what inputs are to be made in.

    weights True: seeded random weights (none of them constant) and random numbers of the same seed.
    False: parameters without memory, in the fake-tensor mode that is given too. model: one with
    weights of its own (or none: see `valueless`), to be taken as it is instead.
    """
    if model is not None:
        mode = mode_of(model)
        with mode or seeded(seed):
            yield model, mode
    elif weights:
        with seeded(seed):
            root: Any = kind._from_config(config, dtype=DTYPES[dtype])
            root.eval().requires_grad_(False)
            unsettle(root)
            yield root, None
    else:
        root, mode = valueless(kind, config, DTYPES[dtype])
        with mode:
            yield root, mode


def valueless(kind: Any, config: Any, dtype: torch.dtype) -> tuple[Any, FakeTensorMode]:
    """A transformers model whose parameters have no memory, and the mode that they live in."""
    from transformers.initialization import no_init_weights

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        with no_init_weights():
            root: Any = kind._from_config(config, dtype=dtype)
        root.eval().requires_grad_(False)
        root.tie_weights()
    _fill_constants(root, root)
    return root, mode


def mode_of(model: nn.Module) -> FakeTensorMode | None:
    """The mode that a model's parameters live in, None where they have memory."""
    fakes = (p for p in model.parameters() if isinstance(p, FakeTensor))
    return next((fake.fake_mode for fake in fakes), None)


@torch.no_grad()
def _fill_constants(module: nn.Module, owner: Any) -> None:
    """Gives the buffers that no checkpoint has (rotary frequencies, scales) memory and values.

    They are constants of the program: a model without weights needs their numbers all the same.
    transformers' own initialisation of them is run, as it does after loading a checkpoint; `owner`
    is the innermost transformers model that holds the module, which knows how.
    """
    if hasattr(module, "_init_weights"):
        owner = module
    names = sorted(module._non_persistent_buffers_set)
    for name in names:
        fake = getattr(module, name)
        # In full precision: a checkpoint lacks them, and narrow ones cannot stay in the program.
        dtype = torch.float32 if fake.is_floating_point() else fake.dtype
        real = torch.empty(fake.shape, dtype=dtype)
        module.register_buffer(name, real, persistent=False)
    if names:
        owner._init_weights(module)
    for child in module.children():
        _fill_constants(child, owner)


@torch.no_grad()
def unsettle(model: nn.Module) -> None:
    """Gives weights that are initialised to one constant (gains, biases, statistics) other values.

    A gain of one or a bias of zero hides a compiler that drops it; a projection of zeros makes
    any comparison pass. Zeros become normal with deviation 0.02, other constants are multiplied by
    factors between 0.5 and 1.5.
    """
    for tensor in [*model.parameters(), *model.buffers()]:
        if (
            not tensor.is_floating_point()
            or tensor.numel() < 2
            or bool((tensor != tensor.flatten()[0]).any())
        ):
            continue
        noise = torch.empty(tensor.shape)
        if bool((tensor == 0).all()):
            tensor.copy_(noise.normal_(0, 0.02))
        else:
            tensor.mul_(noise.uniform_(0.5, 1.5))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within, torch's random numbers are those of `seed`; outside, they go on as if nothing was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
