"""Points and rays in the frame of a field without bounds; see scene3d.core.warp for what the frames are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.core.warp import Warp

# Distances beyond have no end; and nothing counts as farther than so many times the near region.
ENDLESS, MOST_TIMES = 1e9, 100.0


def near_frame(warp: Warp, points: Tensor) -> Tensor:
    """World points in the frame before division. [P, 3] to [P, 3]"""
    matrix = warp.frame_from_world.to(points)
    return points @ matrix[:, :3].T + matrix[:, 3]


def weights_of(warp: Warp, near: Tensor) -> Tensor:
    """By what points of near_frame are divided: at least 1 in a cube; in a frustum less than 1 where it does not
    reach. [P, 3] to [P]"""
    return near[:, 2] if warp.kind == "frustum" else near.abs().amax(dim=1).clamp_min(1.0)


def frame_points(warp: Warp, points: Tensor) -> Tensor:
    """World points in the frame; behind the near plane of a frustum, NaN. [P, 3] to [P, 3]"""
    near = near_frame(warp, points)
    w = weights_of(warp, near)
    inside = near / w[:, None]
    if warp.kind == "frustum":
        framed = torch.stack([inside[:, 0], inside[:, 1], 1 - 1 / w], dim=1)
        return torch.where((w >= 1)[:, None], framed, torch.nan)
    is_largest = inside.abs() >= 1
    return torch.where(is_largest & (w > 1)[:, None], inside.sign() * (2 - 1 / w)[:, None], inside)


def frame_weights(warp: Warp, framed: Tensor) -> Tensor:
    """Weights of points given in the frame, at most MOST_TIMES. [P, 3] to [P]"""
    inverse = 1 - framed[:, 2] if warp.kind == "frustum" else (2 - framed.abs().amax(dim=1)).clamp_max(1.0)
    return 1 / inverse.clamp_min(1 / MOST_TIMES)


def world_points(warp: Warp, framed: Tensor) -> Tensor:
    """Points of the frame in the world; what is farther than MOST_TIMES is moved there. [P, 3] to [P, 3]"""
    w = frame_weights(warp, framed)[:, None]
    if warp.kind == "frustum":
        near = torch.cat([framed[:, :2] * w, w], dim=1)
    else:
        is_largest = framed.abs() >= framed.abs().amax(dim=1, keepdim=True)
        near = torch.where(is_largest & (w > 1), framed.sign() * w, framed * w)
    matrix = warp.frame_from_world.to(framed)
    return torch.linalg.solve(matrix[:, :3], (near - matrix[:, 3]).T).T


def stretch(warp: Warp, framed: Tensor) -> Tensor:
    """Length in the frame per scene unit along rays from the near region. [P, 3] to [P]"""
    return warp.scale / frame_weights(warp, framed).square()


@dataclass(frozen=True)
class RayPieces:
    """K straight pieces of each ray, in order; those of no length are empty. The way in the frame is
    origin + s direction, s from 0 to length; 1 / w and t / w, t the distance in the world, are linear in s.

    Attributes:
        origins: [R, K, 3]
        directions: Unit. [R, K, 3]
        lengths: [R, K]
        inverse_w: At the beginning and at the end. [R, K, 2]
        t_over_w: The same. [R, K, 2]
    """

    origins: Tensor
    directions: Tensor
    lengths: Tensor
    inverse_w: Tensor
    t_over_w: Tensor

    def distances_on(self, k: int, s: Tensor) -> Tensor:
        """Distances in the world of places on piece k. [R, S] to the same."""
        f = s / self.lengths[:, k, None].clamp_min(torch.finfo(s.dtype).tiny)
        inverse, over = (
            values[:, k, :1] + f * (values[:, k, 1:] - values[:, k, :1]) for values in (self.inverse_w, self.t_over_w)
        )
        return over / inverse.clamp_min(1 / MOST_TIMES)


def ray_pieces(warp: Warp, origins: Tensor, directions: Tensor, near: float, far: float) -> RayPieces:
    """Rays of the world, cut where they pass from one region of the frame to the next. [R, 3] each"""
    matrix = warp.frame_from_world.to(origins)
    o, d = near_frame(warp, origins), directions @ matrix[:, :3].T
    first, last = o.new_full((len(o),), max(near, 0.0)), o.new_full((len(o),), far)
    if warp.kind == "frustum":
        crossing = (1 - o[:, 2]) / d[:, 2]
        first = torch.where(d[:, 2] > 0, torch.maximum(crossing, first), first)
        last = torch.where(d[:, 2] < 0, torch.minimum(crossing, last), last)
        # Never in front of the near plane, or with an end that lies to the side.
        is_out = ((d[:, 2] == 0) & (o[:, 2] < 1)) | ((last >= ENDLESS) & (d[:, 2] <= 0))
        cuts = torch.stack([first, torch.where(is_out, first, last)], dim=1)
        axes = torch.full_like(cuts[:, :1], 2, dtype=torch.long)
    else:
        cuts = _cube_cuts(o, d, first, last)
        axes = _largest_axes(o, d, cuts)
    is_there = cuts[:, 1:] > cuts[:, :-1]
    starts = _ends(warp, o, d, axes, cuts[:, :-1], is_there)
    ends = _ends(warp, o, d, axes, cuts[:, 1:], is_there)
    ways = ends[0] - starts[0]
    lengths = ways.norm(dim=2)
    unit = ways / lengths.clamp_min(torch.finfo(o.dtype).tiny)[..., None]
    pairs = [torch.stack([a, b], dim=2) for a, b in zip(starts[1:], ends[1:], strict=True)]
    return RayPieces(starts[0], unit, lengths, pairs[0], pairs[1])


def _cube_cuts(o: Tensor, d: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Distances at which pieces begin and end, in order. [R, K + 1]"""
    a, b = (-1 - o) / d, (1 - o) / d
    never = torch.where(o.abs() <= 1, torch.inf, -torch.inf)
    enters = torch.where(d == 0, -never, torch.minimum(a, b)).amax(dim=1)
    leaves = torch.where(d == 0, never, torch.maximum(a, b)).amin(dim=1)
    is_met = enters < leaves
    cuts = [torch.where(is_met, enters, first), torch.where(is_met, leaves, first)]
    for i in range(3):
        j = (i + 1) % 3
        for sign in (-1, 1):
            t = (sign * o[:, j] - o[:, i]) / (d[:, i] - sign * d[:, j])
            cuts.append(torch.where((t > enters) & (t < leaves), first, t))
    inner = torch.stack(cuts, dim=1)
    # What is no cut becomes one at the beginning: its piece is empty.
    is_cut = (inner > first[:, None]) & (inner < last[:, None]) & (inner < ENDLESS)
    inner = torch.where(is_cut, inner, first[:, None]).sort(dim=1).values
    return torch.cat([first[:, None], inner, last[:, None]], dim=1)


def _largest_axes(o: Tensor, d: Tensor, cuts: Tensor) -> Tensor:
    """The largest axis on each piece, -1 within the cube. [R, K]"""
    begin, end = cuts[:, :-1], cuts[:, 1:]
    t = torch.where(end >= ENDLESS, 2 * begin + 1, (begin + end) / 2)
    most = (o[:, None] + d[:, None] * t[..., None]).abs().max(dim=2)
    return torch.where(most.values > 1, most.indices, -1)


def _ends(warp: Warp, o: Tensor, d: Tensor, axes: Tensor, t: Tensor, is_there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Places in the frame [R, K, 3], 1 / w and t / w [R, K] at distances t, in the regions of these axes."""
    is_endless = t >= ENDLESS
    places = o[:, None] + d[:, None] * torch.where(is_endless, 0.0, t)[..., None]
    y = torch.where(is_endless[..., None], d[:, None], places)
    along = y.gather(2, axes.clamp_min(0)[..., None].expand(*t.shape, 1))[..., 0]
    inverse = torch.where(axes >= 0, 1 / along.abs(), 1.0)
    inverse_w = torch.where(is_endless, 0.0, inverse)
    t_over_w = torch.where(is_endless, inverse, t * inverse)
    u = y * inverse[..., None]
    edge = 1 - inverse_w if warp.kind == "frustum" else along.sign() * (2 - inverse_w)
    edge = torch.where(axes >= 0, edge, u[..., 0])
    u = u.scatter(2, axes.clamp_min(0)[..., None].expand(*t.shape, 1), edge[..., None])
    # Crossings of planes that are never crossed are not numbers.
    inverse_w, t_over_w = (torch.where(is_there, value, 0.0) for value in (inverse_w, t_over_w))
    return torch.where(is_there[..., None], u, 0.0), inverse_w, t_over_w
