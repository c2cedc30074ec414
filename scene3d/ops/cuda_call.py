"""What calls into scene3d._cuda have in common: whether it takes a tensor, the stream, working memory.

Tests put scene3d._cuda_emulated in the place of the module; it runs the same kernels on CPU tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scene3d.ops.memory_limit import memory_limit

try:
    from scene3d import _cuda
except ImportError:
    _cuda = None  # type: ignore[assignment]

module: Any = _cuda

# Left for what torch and the driver take besides.
_RESERVE_BYTES = 256 << 20


def takes(*values: Tensor | None) -> bool:
    """Whether the module is there and all of these are float32 tensors on its device; None does not count."""
    if module is None:
        return False
    return all(v is None or (v.device.type == module.DEVICE_TYPE and v.dtype == torch.float32) for v in values)


def device_type() -> str:
    """Type of the device whose tensors the module takes."""
    return "cuda" if module is None else module.DEVICE_TYPE


def begin(native: Any, device: torch.device) -> int:
    """Make `device` the current one of a native module; give torch's stream on it."""
    if device.type != "cuda":
        return 0
    native.select_device(torch.cuda.current_device() if device.index is None else device.index)
    return torch.cuda.current_stream(device).cuda_stream


class Memory:
    """Working memory of native calls, from torch's allocator: it goes back to it in the order of the stream."""

    def __init__(self, native: Any, device: torch.device) -> None:
        self._native, self._device = native, device
        self._kept: list[Tensor] = []
        self._temporary: list[Tensor] = []

    def native(self) -> Any:
        """For one call. Not to be kept: it refers to this object where no garbage collector sees it."""
        return self._native.WorkingMemory(self._allocate, self._temporary.clear, self._available)

    def free(self) -> None:
        """Give everything back."""
        self._kept.clear()
        self._temporary.clear()

    def _allocate(self, n_bytes: int, is_kept: bool) -> int:
        block = torch.empty(n_bytes, dtype=torch.uint8, device=self._device)
        (self._kept if is_kept else self._temporary).append(block)
        return block.data_ptr()

    def _available(self) -> int:
        return available_bytes(self._device)


def available_bytes(device: torch.device) -> int:
    """Bytes that torch may still take on a device: free ones and those that it holds unused, within the limit.

    On the CPU, where kernels run in tests, all of the limit, or 2^40.
    """
    limit = memory_limit()
    if device.type != "cuda":
        return 1 << 40 if limit is None else limit
    free, total = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    unused = torch.cuda.memory_reserved(device) - allocated
    allowed = min(int(total * _memory_fraction(device)), total if limit is None else limit) - allocated
    return max(1, min(free + unused, allowed) - _RESERVE_BYTES)


def _memory_fraction(device: torch.device) -> float:
    get = getattr(torch.cuda, "get_per_process_memory_fraction", None)  # not in torch before 2.8
    return 1.0 if get is None else get(device)
