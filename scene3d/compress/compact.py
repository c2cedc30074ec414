"""Method "compact": Compact 3D Gaussian Representation (Lee et al. 2024) of a fitted scene.

Masks are learnt (where there are steps of tuning) and what they hide goes; quaternions and log scales are residual
vector quantized with 64 codes a stage; colours come from a hash-grid field with a small network. The field gives
coefficients of spherical harmonics and not, as in the paper, the colour of a direction: it is asked once a Gaussian,
when the file is read, and any renderer can draw the scene. Where the field does not come near enough, as in scenes of
fine detail, codebooks hold what it misses: of the first coefficients and of the others apart. Everything is entropy
coded. The numbers of stages are what the goal needs; the paper has six for shapes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from scene3d.compress.allocate import Choice, allocate
from scene3d.compress.attempt import Attempt, packed, search
from scene3d.compress.codebook import Way, opacity_ways, position_ways
from scene3d.compress.codebook_fit import CodebookSettings, canonical_rows, color_residuals, fit_codebooks
from scene3d.compress.distill import Teacher
from scene3d.compress.goal import Goal, Packed
from scene3d.compress.judge import Judge
from scene3d.compress.mask import learn_mask
from scene3d.compress.quantizer import Quantizer, QuantizerSettings, entropy_bits
from scene3d.compress.thin import Thinned, mean_error, thin
from scene3d.core.cameras import Cameras
from scene3d.core.gaussians import Gaussians
from scene3d.core.progress import Progress
from scene3d.core.scene import Scene
from scene3d.io import s3d_codebook as codec
from scene3d.io.field_bytes import round_field
from scene3d.io.s3d_container import container_bytes
from scene3d.ops.hash_field import HashField, new_field
from scene3d.ops.threads import single_threaded_torch

N_CODES, MAX_STAGES = 64, 6
# Codes of a stage of what the field misses, and stages.
COLOR_CODES, COLOR_STAGES = {"sh0": 256, "shN": 512}, 4
# Share of the allowed error that one masked share of the scene is worth.
MASK_STRENGTH = 1.0
# Of the allowed error, what may be lost where masks are taken.
MASK_SHARE = 0.5
FIELD_STEPS, FIELD_BATCH, FIELD_RATE = 800, 2048, 1e-2
# Gaussians for each row of the finest tables.
GAUSSIANS_PER_ROW = 8
ROW_BITS = (8, 19)


def compress(scene: Scene, goal: Goal, judge: Judge, views: Cameras) -> Packed:
    """Code a scene.

    Args:
        scene: What to compress, finite.
        goal: What to reach.
        judge: Says how near a result is.
        views: Cameras by which decisions are made.
    """
    best = search(_Encoder(scene, goal, judge, views), goal)
    chunks = {chunk: chunk.split(".")[0] for chunk in best.container.chunks}
    places = {"octree": "means", "below": "means", "opacity": "opacity_logits"}
    return packed(best, goal, judge, {**chunks, **places, "field.tables": "sh0", "field.layers": "sh0"})


class _Encoder:
    """What is found out once about a scene, and coding it for any bound."""

    def __init__(self, scene: Scene, goal: Goal, judge: Judge, views: Cameras) -> None:
        self.info, self.judge, self.tune_steps = scene.info, judge, goal.tune_steps
        self.teacher = Teacher(scene.splats(), views, judge.settings)
        thinned = thin(scene, goal, judge, views)
        gaussians, weights = thinned.gaussians, thinned.weights
        if self.tune_steps:
            bound = 10 ** (-goal.fidelity_db / 10)
            masked, masked_weights = _masked(thinned, self.teacher, self.tune_steps, MASK_STRENGTH * bound)
            # What masks lose, codes would have to be finer for.
            if mean_error(thinned.decider, masked) <= MASK_SHARE * bound:
                gaussians, weights = masked, masked_weights
        self.field = fit_field(gaussians, weights)
        self.thinned = Thinned(gaussians, weights, thinned.decider, mean_error(thinned.decider, gaussians))
        self.ways = {
            **{name: self._stages(name, canonical_rows(gaussians)[name]) for name in ("quats", "log_scales")},
            **self._color_ways(),
            "means": position_ways(self.thinned),
            "opacity_logits": opacity_ways(self.thinned),
        }

    def __call__(self, max_error: float, max_bytes: int | None) -> Attempt:
        options = {name: [way.choice for way in ways] for name, ways in self.ways.items()}
        room = max(max_error - self.thinned.error, 0.0)
        taken = allocate(options, None if max_bytes is not None else room, max_bytes)
        settings = {name: self.ways[name][i].settings for name, i in taken.items()}
        columns = {
            name: value for name, value in settings.items() if isinstance(value, QuantizerSettings) and value.n_stages
        }
        fit_settings = CodebookSettings(columns, self.tune_steps)
        coded = fit_codebooks(self.thinned.gaussians, self.thinned.weights, fit_settings, self.teacher, self.field)
        depth, bits = settings["means"], settings["opacity_logits"]
        assert isinstance(depth, int)
        assert isinstance(bits, int)
        container, order = codec.encode_codebook(coded, depth, bits, self.info)
        restored = codec.decode_codebook(container, Path("in memory"))
        verdict, size = self.judge.verdict(restored), len(container_bytes(container))
        return Attempt(container, restored, self.thinned.gaussians.select(order), verdict, size)

    def _stages(self, name: str, rows: torch.Tensor) -> list[Way]:
        """Residual stages of a shape, from one on."""
        return self._ways(rows, QuantizerSettings(N_CODES, MAX_STAGES), lambda now: self.thinned.error_with(name, now))

    def _color_ways(self) -> dict[str, list[Way]]:
        """The field alone, and residual stages of what it misses."""
        gaussians = self.thinned.gaussians
        values = round_field(self.field)(gaussians.means)
        targets, ways = color_residuals(gaussians, round_field(self.field)), {}
        for name, of_field in (("sh0", values[:, :3]), ("shN", values[:, 3:])):
            if targets[name].shape[1] == 0:
                continue
            error = functools.partial(_error_of_colors, self.thinned, name, of_field)
            alone = Way(QuantizerSettings(1, 0), Choice(0.0, error(torch.zeros_like(of_field))))
            settings = QuantizerSettings(COLOR_CODES[name], COLOR_STAGES)
            ways[name] = [alone, *self._ways(targets[name], settings, error)]
        return ways

    def _ways(
        self, rows: torch.Tensor, settings: QuantizerSettings, error: Callable[[torch.Tensor], float]
    ) -> list[Way]:
        loads = self.thinned.weights
        quantizer = Quantizer(rows, loads + 1e-4 * loads.mean() + 1e-12, settings)
        restored, size, ways = torch.zeros_like(rows), 0.0, []
        for stage, (codes, index) in enumerate(zip(quantizer.stages, quantizer.indices, strict=True)):
            restored = restored + codes.detach()[index]
            size += entropy_bits(index, len(codes)) * len(rows) / 8 + 1.9 * codes.numel()
            ways.append(Way(replace(settings, n_stages=stage + 1), Choice(size, error(restored))))
        return ways


def _error_of_colors(thinned: Thinned, name: str, of_field: torch.Tensor, added: torch.Tensor) -> float:
    return thinned.error_with(name, of_field + added)


def fit_field(gaussians: Gaussians, weights: torch.Tensor, seed: int = 0) -> HashField:
    """A field whose values are the colour coefficients of Gaussians; those that count more are drawn more often.

    Args:
        gaussians: The scene.
        weights: How much each counts. [N]
        seed: Of the first values and of what is drawn.
    """
    n = len(gaussians)
    row_bits = min(max(math.ceil(math.log2(max(n, 1) / GAUSSIANS_PER_ROW + 1)), ROW_BITS[0]), ROW_BITS[1])
    colors = torch.cat([gaussians.sh0, gaussians.shN], dim=1).reshape(n, -1) if n else torch.zeros(0, 3)
    field = new_field(gaussians.means, 3 * (gaussians.shN.shape[1] + 1), n_row_bits=row_bits, seed=seed)
    if n == 0:
        return field
    leaves = [value.requires_grad_() for value in (field.tables, *field.layers)]
    optimizer = torch.optim.Adam(leaves, lr=FIELD_RATE, eps=1e-15)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.02 ** (1 / FIELD_STEPS))
    generator = torch.Generator().manual_seed(seed)
    shares = (weights.clamp_min(0) + 1e-3 * weights.mean() + 1e-12).double().cumsum(dim=0)
    with single_threaded_torch(), Progress(FIELD_STEPS, "fitting the colour field") as progress:
        for _ in range(FIELD_STEPS):
            drawn = torch.rand(min(FIELD_BATCH, 4 * n), generator=generator, dtype=torch.float64) * shares[-1]
            rows = torch.searchsorted(shares, drawn).clamp(max=n - 1)
            error = (field(gaussians.means[rows]) - colors[rows]).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            decay.step()
            progress.advance()
    for value in leaves:
        value.requires_grad_(False)
    return field


def _masked(thinned: Thinned, teacher: Teacher, n_steps: int, strength: float) -> tuple[Gaussians, torch.Tensor]:
    """What masks leave, with weights found again by place: rows keep their order."""
    left = learn_mask(thinned.gaussians, teacher, n_steps, strength)
    return left, _weights_of(left, thinned)


def _weights_of(left: Gaussians, thinned: Thinned) -> torch.Tensor:
    # Masking moves no Gaussian: places tell which ones stayed.
    _, index = torch.unique(torch.cat([thinned.gaussians.means, left.means]), dim=0, return_inverse=True)
    n = len(thinned.gaussians)
    by_place = torch.zeros(int(index.max()) + 1 if len(index) else 0)
    by_place[index[:n]] = thinned.weights
    return by_place[index[n:]]
