"""A device that is none: tensors of the CPU that say they are on a GPU, and refuse to be mixed with others.

With the CUDA kernels emulated on the host, whole fits run on it: code that leaves a tensor on the wrong device fails
here as it would on a GPU. What autograd calls on the way back is not checked, since its gradients carry no mark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from emulation import load_emulated
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter, tree_map

from scene3d.ops import cuda_call

DEVICE = torch.device("cuda", 0)
GIGABYTE = 1 << 30


class Pretended(Tensor):
    """A tensor that says it is on the GPU."""


class WrongDevice(RuntimeError):
    """Tensors of two devices met."""


def pretended(value: Any) -> Any:
    return value.as_subclass(Pretended) if isinstance(value, Tensor) else value


def plain(value: Any) -> Any:
    return value.as_subclass(Tensor) if isinstance(value, Pretended) else value


def is_pretended(value: Any) -> bool:
    return isinstance(value, Pretended)


def wanted_device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device | None:
    """The device that a call names."""
    named = [kwargs.get("device"), *args[1:]]
    for value in named:
        if isinstance(value, torch.device):
            return value
        if isinstance(value, str) and value.split(":")[0] in ("cpu", "cuda"):
            return torch.device(value)
    return None


def on_cpu(value: Any) -> Any:
    is_device = isinstance(value, torch.device) or (isinstance(value, str) and value.split(":")[0] in ("cpu", "cuda"))
    return torch.device("cpu") if is_device else value


INDEXING = (Tensor.__getitem__, Tensor.__setitem__)
MOVING = (Tensor.copy_, Tensor.type_as)
TO_HOST = (Tensor.numpy, Tensor.__array__)


class PretendMode(TorchFunctionMode):
    """Sees every call of torch, checks where its tensors are, and marks its results."""

    is_lenient = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        if func == Tensor.device.__get__:
            return DEVICE if is_pretended(args[0]) else torch.device("cpu")
        if func == Tensor.is_cuda.__get__:
            return is_pretended(args[0])
        if func in TO_HOST and is_pretended(args[0]):
            raise WrongDevice("numpy of a tensor on the GPU")
        is_there = self._is_result_there(func, args, kwargs)
        args, kwargs = tree_map(on_cpu, args), tree_map(on_cpu, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
        if func in (Tensor.to, Tensor.cpu) and is_there != is_pretended(args[0]) and result is args[0]:
            result = result.view_as(result)  # a move makes another object
        given = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
        mark = pretended if is_there else plain
        return tree_map(lambda value: value if any(value is other for other in given) else mark(value), result)

    def _is_result_there(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
        there = [value for value in tensors if is_pretended(value)]
        wanted = torch.device("cpu") if func == Tensor.cpu else wanted_device(args, kwargs)
        if wanted is not None:
            if kwargs.get("generator") is not None and wanted.type == "cuda":
                raise WrongDevice(f"{func.__name__}: a generator of the CPU for a tensor on the GPU")
            return wanted.type == "cuda"
        if func == Tensor.to and len(args) > 1 and isinstance(args[1], Tensor):
            return is_pretended(args[1])
        if func in INDEXING or func in MOVING:
            if func in INDEXING and there and not is_pretended(args[0]) and not self.is_lenient:
                raise WrongDevice(f"{func.__name__}: a tensor of the CPU is indexed by one on the GPU")
            return is_pretended(args[0])
        elsewhere = [value for value in tensors if not is_pretended(value) and value.ndim > 0]
        if there and elsewhere and not self.is_lenient:
            shapes = [(tuple(v.shape), "cuda" if is_pretended(v) else "cpu") for v in tensors]
            raise WrongDevice(f"{getattr(func, '__name__', func)}: tensors of two devices: {shapes}")
        return bool(there)

    def within_autograd(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        """A backward of ours, which autograd calls without any mode."""

        def call(*args: Any) -> Any:
            was, self.is_lenient = self.is_lenient, True
            try:
                with self:
                    return backward(*args)
            finally:
                self.is_lenient = was

        return call


class Proxy:
    """A native module, or an object of it: takes tensors on the pretended GPU only."""

    def __init__(self, target: Any, mode: PretendMode) -> None:
        self._target, self._mode = target, mode

    def __getattr__(self, name: str) -> Any:
        if name == "DEVICE_TYPE":
            return "cuda"
        value = getattr(self._target, name)
        return self._called(value, name) if callable(value) else value

    def _called(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            def inner(value: Any) -> Any:
                if isinstance(value, Proxy):
                    return value._target
                if isinstance(value, Tensor) and not is_pretended(value) and not self._mode.is_lenient:
                    raise WrongDevice(f"{name}: a tensor of the CPU {tuple(value.shape)} for the kernels")
                return plain(value)

            result = function(*tree_map(inner, args), **tree_map(inner, kwargs))
            is_native = type(result).__module__.endswith("_cuda_emulated")
            return Proxy(result, self._mode) if is_native else result

        return call


@contextmanager
def pretend_device(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """In here, "cuda" is a device, and its kernels run on the host."""
    mode = PretendMode()
    patch.setattr(cuda_call, "module", Proxy(load_emulated(), mode))
    patch.setattr(cuda_call, "begin", lambda native, device: 0)
    patch.setattr(cuda_call, "available_bytes", lambda device: GIGABYTE)
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(Tensor, "pin_memory", lambda self: self)
    for function in torch.autograd.Function.__subclasses__():
        if function.__module__.startswith("scene3d."):
            patch.setattr(function, "backward", staticmethod(mode.within_autograd(function.backward)))
    with mode:
        yield
