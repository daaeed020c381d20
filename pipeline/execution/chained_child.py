"""Generates tokens on a device, in a child process.

The child is run with the Python runtime of the compiler's release first on PYTHONPATH, and calls
all functions in one session of the module: what they return stays on the device unless the chain
reads it. It writes a word to stdout before each call; stderr has what IREE's runtime says of a
failure.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from iree_pilot.models.chains import greedy
from iree_pilot.models.spec import referred
from iree_pilot.pipeline.execution.chained import ChainJob, GenerationStep
from iree_pilot.pipeline.program import program as programs
from iree_pilot.pipeline.program import tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray


class OnDevice(NamedTuple):
    """Result of a function: a buffer view of the runtime, and its element type's name."""

    view: Any
    dtype: str


class ChainSession:
    """The functions of a module in one context on a device."""

    def __init__(self, job: ChainJob) -> None:
        from iree import runtime

        self._rt = runtime
        self._device = runtime.get_device(job.device)
        directory = Path(job.directory)
        self.program = programs.load(directory)
        instance = runtime.VmInstance()
        modules = [runtime.create_hal_module(instance, self._device)]
        held = self.program.parameters
        if held is not None and held.archives:
            index = runtime.ParameterIndex()
            for archive in held.archives:
                index.load(str(directory / archive))
            provider = index.create_provider(scope=held.scope)
            modules.append(runtime.create_io_parameters_module(instance, provider))
        self._module = runtime.VmModule.mmap(instance, job.module)
        self._context = runtime.VmContext(instance, [*modules, self._module])

    def call(self, function: str, *values: Any) -> Sequence[OnDevice]:
        """The function's results, which stay on the device."""
        print(function, flush=True)
        outputs = self.program.function(function).outputs
        given = self._rt.VmVariantList(len(values))
        for value in values:
            given.push_ref(value.view if isinstance(value, OnDevice) else self._put(value))
        results = self._rt.VmVariantList(len(outputs))
        self._context.invoke(self._module.lookup_function(function), given, results)
        return [
            OnDevice(results.get_as_object(i, self._rt.HalBufferView), kind.dtype)
            for i, kind in enumerate(outputs)
        ]

    def _put(self, values: NDArray[Any]) -> Any:
        rt = self._rt
        return self._device.allocator.allocate_buffer_copy(
            memory_type=int(rt.MemoryType.DEVICE_LOCAL),
            allowed_usage=int(rt.BufferUsage.DEFAULT),
            device=self._device,
            buffer=np.ascontiguousarray(values),
            element_type=int(rt.array_interop.map_dtype_to_element_type(values.dtype)),
        )

    def read(self, value: OnDevice) -> NDArray[Any]:
        """The value as an array, by way of memory that the host may map.

        The runtime's own `to_host` has the device write into NumPy's memory, which Vulkan drivers
        take only where that happens to start at a page.
        """
        rt, source = self._rt, value.view.get_buffer()
        target = self._device.allocator.allocate_buffer(
            memory_type=int(rt.MemoryType.HOST_LOCAL | rt.MemoryType.DEVICE_VISIBLE),
            allowed_usage=int(rt.BufferUsage.TRANSFER_TARGET | rt.BufferUsage.MAPPING_SCOPED),
            allocation_size=source.byte_length(),
        )
        semaphore = self._device.create_semaphore(0)
        copied = rt.HalFence.create_at(semaphore, 1)
        self._device.queue_copy(
            source,
            target,
            wait_semaphores=rt.HalFence.create_at(semaphore, 0),
            signal_semaphores=copied,
        )
        copied.wait()
        raw: NDArray[Any] = target.map().asarray((source.byte_length(),), np.dtype(np.uint8))
        return raw.copy().view(tensors.numpy_dtype(value.dtype)).reshape(value.view.shape)


def generated(job: ChainJob, directory: Path) -> Iterator[GenerationStep]:
    """The steps, their logits in files of the directory."""
    session = ChainSession(job)
    inputs = tensors.examples(session.program, Path(job.directory))
    started = time.monotonic()
    chain = referred(job.chain)
    steps = enumerate(greedy(chain, session, inputs, job.steps, job.tokens), start=1)
    for number, (last, picked) in steps:
        seconds = time.monotonic() - started
        yield GenerationStep(
            tuple(picked), tensors.save(last, directory, f"logits{number}.bin"), seconds
        )
        started = time.monotonic()
