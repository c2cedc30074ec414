"""How much of what is seen each node of a field's planes carries: rendering weights, summed (VQRF, Li et al. 2023)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.fields import LANES, Field, decoder_of
from scene3d.ops.rays import camera_rays, tiled_pixels
from scene3d.render.field_cpu import NativeField, empty_marks
from scene3d.render.field_march import MarchSettings, RaySums

RAYS_AT_ONCE = 1 << 16


@torch.no_grad()
def plane_importance(field: Field, cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of weights of samples over all pixels, shared among the four nodes around each sample.

    Args:
        field: Of the kind vm or rbf, float32 on the CPU.
        cameras: Views that matter.

    Returns:
        For the planes xy, xz and yz. [n_b, n_a] each
    """
    # Lines of 1 make the gradient of a summed feature by a node of a plane the weights that fall on it.
    stand_in = tuple(
        (torch.zeros if value.ndim == 3 else torch.ones)(*value.shape[:-1], LANES) for value in field.color
    )
    basis = field.decoder.basis.new_zeros(field.n_modes * LANES, field.decoder.basis.shape[1])
    decoder = decoder_of([basis, *field.decoder.tensors()[1:]])
    plain = replace(field, color=stand_in, decoder=decoder, shading="deferred")
    native = NativeField(plain, MarchSettings(min_weight=0.0))
    grads = [torch.zeros_like(value) for value in (*field.density, *stand_in)]
    marks, tape = empty_marks(grads), native.new_tape()
    for c in range(len(cameras)):
        camera = cameras.select([c])
        columns, rows = tiled_pixels(camera.width(), camera.height())
        for start in range(0, len(columns), RAYS_AT_ONCE):
            pixels = slice(start, start + RAYS_AT_ONCE)
            view = torch.zeros(len(columns[pixels]), dtype=torch.long)
            sums = native.march(*camera_rays(camera, view, columns[pixels], rows[pixels]), None, tape)
            nothing = torch.zeros_like(sums.opacity)
            native.march_backward(tape, RaySums(torch.ones_like(sums.features), nothing, nothing), grads, marks)
    first = len(field.density)
    xy, xz, yz = (grad[..., 0].contiguous() for grad in grads[first : first + 3])
    return xy, xz, yz
