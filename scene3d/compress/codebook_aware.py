"""Fitting with codebooks in place: Compact3D (Navaneet et al. 2024, "CompGS") while a scene is fitted to photos.

Some way into the fit k-means, weighted by what the photos see, makes codes for quaternions, log scales and colours.
From then on the codes are what is rendered; gradients pass straight through to the rows. Every so many steps rows
choose their codes anew and codes move to the means of what they stand for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scene3d.compress.allocate import allocate
from scene3d.compress.aware_settings import AwareSettings, TrainingViews
from scene3d.compress.codebook import opacity_ways, position_ways
from scene3d.compress.codebook_fit import canonical_rows
from scene3d.compress.goal import Goal
from scene3d.compress.importance import blend_weights
from scene3d.compress.quantizer import nearest_code, weighted_means
from scene3d.compress.thin import Thinned, thin
from scene3d.core.gaussians import Gaussians
from scene3d.core.push import Push
from scene3d.core.scene import Scene
from scene3d.io import s3d_codebook as codec
from scene3d.io.s3d_codebook import CodedColumn, CodedGaussians, float16
from scene3d.io.s3d_container import Container
from scene3d.ops.kmeans import kmeans

# Sizes of the codebooks, as in the paper but for the harmonics, of which small scenes have less to tell.
N_CODES = {"quats": 4096, "log_scales": 4096, "sh0": 4096, "shN": 1024}
N_ITERATIONS = 10
# Share of what coding may cost that positions and opacities may take: what photos cannot make up for.
ROUNDING_SHARE = 0.2


@dataclass(frozen=True)
class CodebookFit:
    """The influence on one fit.

    Attributes:
        settings: Its `noise_from` says when codes begin, `plan_every` how often rows choose anew.
        views: By which weights are measured and coding is judged.
        seed: Of k-means.
    """

    settings: AwareSettings
    views: TrainingViews
    seed: int

    def influence(self, gaussians: Gaussians, push: Push | None, step: int, fraction: float) -> Push | None:
        """As a fit takes it."""
        if fraction < self.settings.noise_from:
            return None
        is_due = push is None or step % self.settings.plan_every == 0
        return self._push(gaussians, push) if is_due else push

    def finish(self, gaussians: Gaussians, push: Push | None) -> Container:
        """The file; `gaussians` are those that are shown. Runs may be too short for any push."""
        push = push or self._push(gaussians, None)
        scene = Scene(gaussians, self.views.info)
        judge = self.views.judge(gaussians)
        goal = Goal(self.settings.drop_db, scene_psnr=judge.scene_psnr() or Goal.scene_psnr)
        thinned = thin(scene, goal, judge, self.views.cameras)
        columns = {}
        # What is left may have lost its highest degrees.
        for name, rows in canonical_rows(thinned.gaussians).items():
            if name in N_CODES and rows.shape[1]:
                codes = float16(push.memory[f"codes.{name}"][:, : rows.shape[1]])
                columns[name] = CodedColumn((codes,), nearest_code(rows, codes)[None])
        depth, bits = self._rounding(thinned, goal)
        coded = CodedGaussians(thinned.gaussians.means, thinned.gaussians.opacity_logits, columns)
        return codec.encode_codebook(coded, depth, bits, self.views.info)[0]

    def _push(self, gaussians: Gaussians, push: Push | None) -> Push:
        weights = blend_weights(gaussians, self.views.cameras, self.views.raster).sum(dim=0)
        # A Gaussian that no view saw still needs a code.
        loads = weights + 1e-4 * weights.mean() + 1e-12
        offsets, memory = {}, {}
        for name, rows in canonical_rows(gaussians).items():
            if name not in N_CODES or rows.shape[1] == 0:
                continue
            if push is None or push.memory[f"codes.{name}"].shape[1] != rows.shape[1]:
                codes, labels = kmeans(rows, min(N_CODES[name], len(rows)), loads, N_ITERATIONS, self.seed)
            else:
                codes = push.memory[f"codes.{name}"]
                labels = nearest_code(rows, codes)
                codes = weighted_means(rows, loads, labels, codes)
            memory[f"codes.{name}"] = codes
            value = getattr(gaussians, name)
            offsets[name] = _as_stored(codes[labels], value) - value
        return Push(offsets, memory=memory)

    def _rounding(self, thinned: Thinned, goal: Goal) -> tuple[int, int]:
        """Bits of positions and of opacities."""
        ways = {"means": position_ways(thinned), "opacity_logits": opacity_ways(thinned)}
        options = {name: [way.choice for way in of_name] for name, of_name in ways.items()}
        taken = allocate(options, ROUNDING_SHARE * 10 ** (-goal.fidelity_db / 10))
        depth, bits = (ways[name][i].settings for name, i in taken.items())
        assert isinstance(depth, int)
        assert isinstance(bits, int)
        return depth, bits


def _as_stored(rows: Tensor, value: Tensor) -> Tensor:
    """Canonical rows in the shape of a stored tensor; quaternions with its sign and length."""
    restored = rows.view_as(value)
    if value.shape[1:] != (4,):
        return restored
    sign = torch.where((restored * value).sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
    return restored * sign * value.norm(dim=1, keepdim=True)
