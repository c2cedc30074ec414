"""Students: turn a teacher of any kind into splats or a field, without photos (progressive volume distillation).

Three blocks: take over what the teacher knows of its volume, render the teacher from free cameras, fit to those renders
with the fits of photos, which begin where the first block ended. Every kind of field that can be begun from a box and
its occupied cells is a student.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from scene3d.core.cameras import Cameras
from scene3d.core.capture import Capture, Photo
from scene3d.core.fields import HARMONIC_FEATURES, NETWORK_KINDS, FieldKind
from scene3d.core.gaussians import Gaussians
from scene3d.core.progress import Progress
from scene3d.core.scene import Scene
from scene3d.ops.pinhole import pixel_rays
from scene3d.ops.threads import single_threaded_torch
from scene3d.recon import initialize
from scene3d.recon.field_fit import FieldHooks, fit_field
from scene3d.recon.field_settings import FieldFitSettings, field_preset
from scene3d.recon.field_state import FieldState, first_state
from scene3d.recon.fit import Hooks, fit
from scene3d.recon.imitate import Surfaces, imitate_colors, imitate_density, occupied_cells
from scene3d.recon.presets import fast
from scene3d.recon.settings import FitSettings, LearningRates, ResolutionSettings
from scene3d.recon.surface_colors import with_view_colors
from scene3d.recon.teacher import Teacher, View

StudentKind = Literal["splats", "vm", "cp", "trivec", "rbf", "hash", "mlp"]
# Steps of a conversion where nothing is said.
STEPS: dict[str, int] = {"splats": 1000, "vm": 1000, "cp": 1000, "trivec": 1000, "rbf": 800, "hash": 600, "mlp": 600}
# Few steps have to do: they are long at first.
SPLAT_RATES = LearningRates(
    means=3e-4, log_scales=6e-2, quats=1.5e-2, opacity_logits=0.1, sh0=1e-2, shN=5e-3, decay=0.3, beta2=0.98
)
# Of the last nodes of a field, all in all, that the first grid has, but not fewer than the second says.
FIRST_SHARE, FEWEST_VOXELS = 8, 48**3
# Of a field, for the same reason.
DECODER_RATE, FACTOR_RATE = 2e-2, 0.03
NETWORK_DECODER_RATE = 1e-2
# Of so many views harmonics learn several times as fast as a network; fewer do not tell them apart.
HARMONIC_VIEWS = 60
# Samples of a field, in voxels: half as many as photos get.
STEP_IN_VOXELS = 1.0
# Fainter samples have no colour, and a ray ends at twice that light: fewer samples, and no loss that could be measured.
LEAST_WEIGHT = 1e-3
# Nodes of a field are as far apart as pixels of the renders where nothing is said, within these numbers of them.
MIN_VOXELS, MAX_VOXELS = 64**3, 160**3
# Of leaves, as many nodes as that would be if they filled the box, and ranks of colour: their products share less.
LEAF_VOXELS, LEAF_RANK = 2.0, 48
# Rays that pass the matter by so many pixels teach nothing: no cell there is occupied.
REACH_PIXELS = 5
MIN_ALPHA, SOLID_ALPHA = 0.5, 0.9
# Splats of a student begin solid and a little smaller than the distance of their neighbours.
FIRST_OPACITY, FIRST_SIZE, FIRST_THINNESS = 0.8, 0.7, 0.3
# Along short rays, before those along whole ones.
N_COLOR_STEPS = 40
POINTS_PER_VIEW = 20_000


@dataclass(frozen=True)
class StudentSettings:
    """How a student learns.

    Attributes:
        kind: What it is.
        steps: Of the fit to renders; 0 = only what the first block gives, of splats.
        n_splats: To begin with.
        last_voxels: Nodes of the last grid of a field; None: as far apart as pixels of the renders.
        ranks: Of density and of colour; None takes those of the preset.
        seed: Of every random number.
    """

    kind: StudentKind
    steps: int
    n_splats: int = 100_000
    last_voxels: int | None = None
    ranks: tuple[int, int] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Renders:
    """What a student learns from.

    Attributes:
        capture: In memory.
        surfaces: Seen in its training views.
        pixel: Of these views at their surfaces, median, scene units; 0 where no surface is seen.
    """

    capture: Capture
    surfaces: Surfaces
    pixel: float


@dataclass(frozen=True)
class Converted:
    """What came of it.

    Attributes:
        scene: The student.
        fidelity_db: Mean PSNR on white against renders of the teacher that it did not learn from.
        n_views: How many those were.
        seconds: Of the three blocks, by name.
    """

    scene: Scene
    fidelity_db: float
    n_views: int
    seconds: dict[str, float]


def convert_scene(teacher: Teacher, learned: Cameras, held_out: Cameras, settings: StudentSettings) -> Converted:
    """Make a student of `teacher`.

    Args:
        teacher: What is converted.
        learned: Views to learn from.
        held_out: Views to judge by.
        settings: What to make and how.
    """
    began = time.perf_counter()
    with single_threaded_torch():
        renders = render_capture(teacher, learned, held_out)
        rendered = time.perf_counter()
        learn = _learn_splats if settings.kind == "splats" else _learn_field
        scene, fidelity, prepared = learn(teacher, renders, settings)
    seconds = {
        "rendering the teacher": rendered - began,
        "taking over its volume": prepared - rendered,
        "fitting": time.perf_counter() - prepared,
    }
    return Converted(scene, fidelity, len(held_out), seconds)


@torch.no_grad()
def render_capture(teacher: Teacher, learned: Cameras, held_out: Cameras) -> Renders:
    """Renders of a teacher as a capture in memory, and the surfaces in those to learn from."""
    cameras = Cameras(
        torch.cat([learned.viewmats, held_out.viewmats]),
        torch.cat([learned.Ks, held_out.Ks]),
        torch.cat([learned.sizes, held_out.sizes]),
    )
    photos, depths, surfaces, pixels = [], [], [], []
    with Progress(len(cameras), "rendering the teacher") as progress:
        for i in range(len(cameras)):
            view = teacher.view(cameras, i)
            photos.append(_photo(view))
            # Where a pixel is half empty its depth is that of nothing.
            depths.append(torch.where(view.alpha > SOLID_ALPHA, view.depth, 0.0))
            if i < len(learned):
                surfaces.append(_surfaces(view, photos[-1], cameras, i))
                seen = depths[-1][depths[-1] > 0]
                pixels += [float(seen.median() / cameras.Ks[i, 0, 0])] if len(seen) else []
            progress.advance()
    capture = Capture(
        cameras,
        photos.__getitem__,
        train=tuple(range(len(learned))),
        test=tuple(range(len(learned), len(cameras))),
        source=Path(teacher.name),
        has_alpha=True,
        protocol="renders of the teacher",
        load_depth=depths.__getitem__,
    )
    names = ("points", "directions", "normals", "colors")
    found = Surfaces(*(torch.cat([getattr(s, name) for s in surfaces]) for name in names))
    return Renders(capture, found, float(torch.tensor(pixels).median()) if pixels else 0.0)


def first_splats(surfaces: Surfaces, n: int, seed: int) -> Gaussians:
    """Solid, flat splats on the surfaces that the teacher shows, as large as their distances."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(surfaces.points), generator=generator)[:n]
    if len(rows) == 0:
        raise ValueError("teacher: expected surfaces in its views, got none. Check the cameras")
    splats = initialize.from_points(surfaces.points[rows], surfaces.colors[rows].float() / 255, generator)
    normals = surfaces.normals[rows]
    is_known = normals.norm(dim=1) > 0.5
    # The third axis lies along the normal: half-way between z and it turns one into the other.
    half = torch.nn.functional.normalize(normals + torch.tensor([0.0, 0.0, 1.0]) + 1e-6, dim=1)
    turned = torch.cat([torch.zeros(len(half), 1), half], dim=1)
    log_scales = splats.log_scales + math.log(FIRST_SIZE)
    log_scales[is_known, 2] += math.log(FIRST_THINNESS)
    return replace(
        splats,
        quats=torch.where(is_known[:, None], turned, splats.quats),
        opacity_logits=torch.full((len(splats),), math.log(FIRST_OPACITY / (1 - FIRST_OPACITY))),
        log_scales=log_scales,
    )


def first_field(teacher: Teacher, surfaces: Surfaces, settings: FieldFitSettings, n_color_steps: int) -> FieldState:
    """Step 0 of a field: the teacher's box and occupied cells, its density, and then its colours."""
    state = first_state(settings, teacher.box, occupied_cells(teacher), teacher.warp)
    if not state.field.has_network:
        # Networks learn from rays as fast: every point moves all of their numbers.
        state.field = imitate_density(state.field, teacher, state.generator)
        imitate_colors(state, surfaces, settings, n_color_steps)
    # The box is tight already: the first search for empty cells, which cuts it, counts as done.
    state.n_masks = 1
    return state


def _learn_splats(teacher: Teacher, renders: Renders, settings: StudentSettings) -> tuple[Scene, float, float]:
    first = first_splats(renders.surfaces, settings.n_splats, settings.seed)
    first = with_view_colors(first, renders.capture)
    prepared = time.perf_counter()
    result = fit(renders.capture, first, _splat_settings(settings), Hooks())
    assert result.validation is not None
    return Scene(result.gaussians), result.validation.psnr, prepared


def _learn_field(teacher: Teacher, renders: Renders, settings: StudentSettings) -> tuple[Scene, float, float]:
    share = LEAF_VOXELS if settings.kind == "trivec" else 1.0
    nodes = settings.last_voxels or round(share * _voxels(teacher, renders.pixel))
    chosen = _field_settings(settings, nodes, len(renders.capture.train))
    state = first_field(teacher, renders.surfaces, chosen, N_COLOR_STEPS)
    prepared = time.perf_counter()
    result = fit_field(_near_matter(renders.capture), chosen, FieldHooks(), state)
    assert result.validation is not None
    return Scene(result.field), result.validation.psnr, prepared


def _splat_settings(settings: StudentSettings) -> FitSettings:
    base = fast(0, max(settings.steps, 1))
    strategy = replace(base.strategy, cap_max=settings.n_splats)
    return replace(
        base, seed=settings.seed, sh_every=0, strategy=strategy, lrs=SPLAT_RATES, resolution=ResolutionSettings()
    )


def _voxels(teacher: Teacher, pixel: float) -> int:
    """Nodes in the box of the teacher, a pixel apart; without bounds, pixels are of no one size in the frame."""
    if teacher.warp is not None or not pixel > 0:
        return MAX_VOXELS
    size = (teacher.box[1] - teacher.box[0]).double()
    return round(min(max(float(size.prod()) / pixel**3, MIN_VOXELS), MAX_VOXELS))


def _near_matter(capture: Capture) -> Capture:
    """The same with training photos that count near the teacher's matter only."""
    photos = {i: _masked(capture.load(i)) for i in capture.train}
    return replace(capture, load=lambda i: photos[i] if i in photos else capture.load(i))


def _masked(photo: Photo) -> Photo:
    assert photo.alpha is not None
    width = 2 * REACH_PIXELS + 1
    near = torch.nn.functional.max_pool2d(photo.alpha[None, None].float(), width, stride=1, padding=REACH_PIXELS)
    return replace(photo, mask=(near[0, 0] > 0).to(torch.uint8) * 255)


def _field_settings(settings: StudentSettings, last_voxels: int, n_views: int) -> FieldFitSettings:
    assert settings.kind != "splats"
    kind: FieldKind = settings.kind
    is_network = kind in NETWORK_KINDS
    has_harmonics = not is_network and n_views >= HARMONIC_VIEWS
    base = field_preset("fast", kind, max(settings.steps, 1))
    ranks = settings.ranks or (base.density_rank, LEAF_RANK if kind == "trivec" else base.color_rank)
    return replace(
        base,
        seed=settings.seed,
        density_rank=ranks[0],
        color_rank=ranks[1],
        first_voxels=last_voxels if is_network else _first_voxels(last_voxels),
        last_voxels=last_voxels,
        # Half as many nodes a side at first: steps are cheaper. Leaves and bases come soon after planes.
        grow_at=() if is_network else {"trivec": (0.1, 0.2, 0.3), "rbf": (0.1,)}.get(kind, (0.3,)),
        mask_at=(0.0, 0.25, 0.5),
        mask_after=0,
        step_in_voxels=STEP_IN_VOXELS,
        least_weight=LEAST_WEIGHT,
        coloring="harmonics" if has_harmonics else "network",
        n_features=HARMONIC_FEATURES if has_harmonics else base.n_features,
        lr_decoder=DECODER_RATE if has_harmonics else NETWORK_DECODER_RATE,
        lr_factors=base.lr_factors if is_network else FACTOR_RATE,
        # Fog and floaters are what it is for; a teacher has none that should go.
        l1=0.0,
    )


def _first_voxels(last: int) -> int:
    return max(last // FIRST_SHARE, min(FEWEST_VOXELS, last))


def _photo(view: View) -> Photo:
    alpha = view.alpha.clamp(0, 1)
    straight = view.rgb / alpha.clamp_min(1e-3)[..., None]
    return Photo(_bytes(straight), _bytes(alpha))


def _surfaces(view: View, photo: Photo, cameras: Cameras, i: int) -> Surfaces:
    """What of a view is opaque, thinned out evenly."""
    height, width = view.depth.shape
    viewmat = cameras.viewmats[i]
    rays = torch.stack([*pixel_rays(cameras.select([i]), view.depth), torch.ones(height, width)], dim=2)
    places = rays * view.depth[..., None]
    taken = (view.alpha > MIN_ALPHA) & (view.depth > 0)
    row, column = taken.nonzero().unbind(dim=1)
    every = max(1, math.ceil(len(row) / POINTS_PER_VIEW))
    row, column = row[::every], column[::every]
    normals = torch.zeros(height, width, 3)
    across, down = places[1:-1, 2:] - places[1:-1, :-2], places[2:, 1:-1] - places[:-2, 1:-1]
    whole = taken[1:-1, 2:] & taken[1:-1, :-2] & taken[2:, 1:-1] & taken[:-2, 1:-1]
    facing = torch.nn.functional.normalize(torch.linalg.cross(down, across), dim=-1)
    normals[1:-1, 1:-1] = torch.where(whole[..., None], facing, 0.0)
    directions = torch.nn.functional.normalize(rays[row, column] @ viewmat[:3, :3], dim=1)
    points = (places[row, column] - viewmat[:3, 3]) @ viewmat[:3, :3]
    return Surfaces(points, directions, normals[row, column] @ viewmat[:3, :3], photo.rgb[row, column])


def _bytes(values: Tensor) -> Tensor:
    return (values * 255).round().clamp(0, 255).to(torch.uint8).contiguous()
