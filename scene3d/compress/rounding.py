"""Rounding: what the context codec leaves of a scene that is still moving, as offsets of its tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.compress.context_plan import Plan, make_plan, with_colors
from scene3d.compress.sensitivity import Sensitivity
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import SceneInfo
from scene3d.io import s3d_context as codec
from scene3d.io.s3d_container import Container, container_bytes
from scene3d.ops import quaternions

# The depth below which the octree holds lone splats only, see context.
MAX_DEPTH = 14
# A Gaussian is left out where that costs less than this many times the distortion of one number; others make up for it.
PRUNE_BELOW = 150.0
# The logit of what is left out: less than any pixel shows.
GONE = -20.0


@dataclass(frozen=True)
class Rounded:
    """A scene as coded at one distortion.

    Attributes:
        distortion: Mean square error that each number may add.
        keep: Which Gaussians are coded. [N] bool
        plan: Of those, already replaced by what a decoder sees.
        rows: Row of each coded Gaussian in the scene, in the order of the file. [M]
        container: The file.
    """

    distortion: float
    keep: Tensor
    plan: Plan
    rows: Tensor
    container: Container

    @property
    def size_bytes(self) -> int:
        return len(container_bytes(self.container))

    def decoded(self) -> Gaussians:
        """What a reader sees. [M]"""
        return codec.to_gaussians(self.plan.arranged.fixed, self.plan.frame)

    def offsets(self, gaussians: Gaussians) -> dict[str, Tensor]:
        """What coding adds to each tensor of the scene [N] that was coded; what is left out becomes transparent."""
        decoded, original = self.decoded(), gaussians.select(self.rows)
        decoded = _axes_as_before(decoded, original)
        offsets = {}
        for name, value in gaussians.params().items():
            offset = torch.zeros_like(value)
            offset[self.rows] = getattr(decoded, name) - getattr(original, name)
            offsets[name] = offset
        offsets["opacity_logits"][~self.keep] = GONE - gaussians.opacity_logits[~self.keep]
        return offsets


def round_scene(gaussians: Gaussians, sensitivity: Sensitivity, distortion: float, info: SceneInfo) -> Rounded:
    """Code a scene.

    Args:
        gaussians: Finite. [N]
        sensitivity: Of its numbers.
        distortion: Mean square error that each number may add to the images.
        info: Of the file.
    """
    keep = sensitivity.log_opacity > PRUNE_BELOW * distortion
    kept = keep.nonzero()[:, 0]
    plan = make_plan(gaussians.select(kept), sensitivity.select(kept), distortion, MAX_DEPTH)
    container = _encode(plan, info)
    return Rounded(distortion, keep, plan, kept[torch.from_numpy(plan.arranged.order)], container)


def recolored(rounded: Rounded, shown: Gaussians, info: SceneInfo) -> Rounded:
    """The same shapes with other opacities and colours.

    Args:
        rounded: A coded scene.
        shown: All Gaussians with the opacities and colours to code. [N]
        info: Of the file.
    """
    plan = with_colors(rounded.plan, shown.select(rounded.rows))
    container = _encode(plan, info)
    return replace(rounded, plan=plan, container=container)


def _encode(plan: Plan, info: SceneInfo) -> Container:
    chunks, meta = codec.encode_context(plan.arranged, plan.frame, plan.tables, plan.rules)
    return Container("splats", codec.CODEC, len(plan.arranged.order), chunks, info, meta)


def _axes_as_before(decoded: Gaussians, original: Gaussians) -> Gaussians:
    """The same ellipsoids with axes in the order and quaternions near to those of the originals, of their length."""
    order = original.log_scales.argsort(dim=1, descending=True, stable=True)
    log_scales = torch.empty_like(decoded.log_scales).scatter_(1, order, decoded.log_scales)
    sorted_axes = quaternions.to_rotmat(decoded.quats.double())
    axes = torch.empty_like(sorted_axes).scatter_(2, order[:, None, :].expand(-1, 3, -1), sorted_axes)
    before = quaternions.to_rotmat(original.quats.double())
    axes = axes * torch.where((axes * before).sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
    # An axis that was turned by a right angle or more may have got the wrong sign: the least sure one is turned back.
    unsure = (axes * before).sum(dim=1).abs().argmin(dim=1)
    is_mirrored = torch.linalg.det(axes) < 0
    axes[is_mirrored, :, unsure[is_mirrored]] *= -1
    quats = quaternions.from_rotmat(axes)
    ours = original.quats.double()
    sign = torch.where((quats * ours).sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
    quats = quats * sign * ours.norm(dim=1, keepdim=True)
    return replace(decoded, log_scales=log_scales, quats=quats.to(decoded.quats.dtype))
