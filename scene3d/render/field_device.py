"""Fields by the native code of the device that they are on, for work without autograd: fits, masks, look-ups."""

from __future__ import annotations

from scene3d.core.fields import Field
from scene3d.render import field_cuda
from scene3d.render.field_cpu import NativeDecoder, NativeField
from scene3d.render.field_cuda import CudaField, TorchDecoder
from scene3d.render.field_march import USUAL, MarchSettings


def native_field(field: Field, settings: MarchSettings = USUAL) -> NativeField | CudaField:
    """The field handed to the CUDA kernels where they take it, else to the CPU's.

    Raises:
        BackendUnavailable: the native module of the CPU is not built.
        TypeError: neither takes it.
    """
    return CudaField(field, settings) if field_cuda.takes(field) else NativeField(field, settings)


def native_decoder(field: Field) -> NativeDecoder | TorchDecoder:
    """Its decoder, likewise."""
    return TorchDecoder(field.decoder) if field_cuda.takes(field) else NativeDecoder(field.decoder)
