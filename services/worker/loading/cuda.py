"""The CUDA device's memory, by CuPy, which is imported only when a worker asks for it (the extra `cuda`)."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from mesh.errors import Unsuitable
from mesh.mapping import Mapping, address_of

READ_ONLY = 8  # cudaHostRegisterReadOnly: the mapping is, and the driver refuses it otherwise
INSTALL = "pip install 'whimbrel[cuda]', and a torch that is built for CUDA"


class CudaCopier:
    """The first CUDA device that this process sees. Copies run on a stream of their own, beside the engine's."""

    name = "cuda"
    needs_pinned = True

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._stream = cupy.cuda.Stream(non_blocking=True)

    def allocate(self, size: int) -> Tensor:
        """See Copier. Not from a pool: what a replica gives back is there for whoever allocates next."""
        try:
            return self._allocate(size)
        except OSError:
            torch.cuda.empty_cache()  # what torch keeps of replicas that are gone
            return self._allocate(size)

    def _allocate(self, size: int) -> Tensor:
        if not size:
            return torch.empty(0, dtype=torch.uint8, device="cuda")
        with self._os_errors():
            memory = self._cupy.cuda.MemoryPointer(self._cupy.cuda.Memory(size), 0)
        return from_dlpack(self._cupy.ndarray((size,), dtype=self._cupy.uint8, memptr=memory))

    def page_locked(self, size: int) -> memoryview:
        """See Copier."""
        with self._os_errors():
            return memoryview(self._cupy.cuda.alloc_pinned_memory(size))[:size]

    def pin(self, mapping: Mapping, start: int, size: int) -> None:
        """See Copier."""
        with self._os_errors():
            self._cupy.cuda.runtime.hostRegister(mapping.address + start, size, READ_ONLY)

    def unpin(self, mapping: Mapping, start: int) -> None:
        """See Copier."""
        with self._os_errors():
            self._cupy.cuda.runtime.hostUnregister(mapping.address + start)

    def copy(self, target: Tensor, offset: int, source: memoryview) -> None:
        """See Copier."""
        runtime = self._cupy.cuda.runtime
        with self._os_errors():
            runtime.memcpyAsync(
                target.data_ptr() + offset,
                address_of(source),
                source.nbytes,
                runtime.memcpyHostToDevice,
                self._stream.ptr,
            )

    def mark(self) -> Callable[[], None]:
        """An event behind them on the stream; waiting for it sleeps and holds no lock of Python's."""
        with self._os_errors():
            event = self._cupy.cuda.Event(block=True, disable_timing=True)
            event.record(self._stream)

        def wait() -> None:
            with self._os_errors():
                event.synchronize()

        return wait

    @contextmanager
    def _os_errors(self) -> Iterator[None]:
        try:
            yield
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            raise OSError(f"CUDA: {error}") from error


def open_cuda() -> CudaCopier:
    """The device. Raises Unsuitable, saying what is missing, where there is none that torch and CuPy can use."""
    if not torch.cuda.is_available():
        raise Unsuitable(
            f"WHIMBREL_DEVICE is cuda, but this torch ({torch.__version__}) finds no CUDA device; {INSTALL}",
            reason="NO_CUDA",
        )
    try:
        cupy = importlib.import_module("cupy")
        cupy.cuda.runtime.setDevice(0)
    except (ImportError, RuntimeError) as error:  # CuPy is missing, or made for another CUDA
        raise Unsuitable(
            f"WHIMBREL_DEVICE is cuda, but CuPy cannot be used: {error}; {INSTALL}", reason="NO_CUDA"
        ) from error
    return CudaCopier(cupy)
