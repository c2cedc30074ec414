"""Fitting scenes whose shapes and colours come from codebooks, after Compact3D (Navaneet et al. 2024, "CompGS").

Every Gaussian keeps its own place and opacity; its quaternion, log scales, and colour coefficients are rows of
codebooks. Codes come from k-means, weighted by what the views see of each Gaussian. Tuning against renders of the full
scene goes on with the codes in place: gradients pass the quantizer, rows choose anew every few steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field

import torch
from torch import Tensor

from scene3d.compress.distill import Leaf, Teacher, distill
from scene3d.compress.quantizer import Quantizer, QuantizerSettings
from scene3d.core.gaussians import Gaussians
from scene3d.io.s3d_codebook import CodedColumn, CodedGaussians, float16
from scene3d.ops.hash_field import HashField

# Step sizes of Adam. Larger ones end below where k-means began: a few hundred steps cannot average their noise.
RATES = {"means": 4e-6, "opacity_logits": 4e-3, "quats": 4e-4, "log_scales": 1e-3, "sh0": 1e-3, "shN": 2e-4}
FIELD_RATE = 1e-4
CODE_RATE_SHARE = 0.1  # Learnt codes are shared by many rows: their gradients are sums.


def _default_columns() -> dict[str, QuantizerSettings]:
    sizes = {"quats": 4096, "log_scales": 4096, "sh0": 4096, "shN": 512}
    return {name: QuantizerSettings(n_codes) for name, n_codes in sizes.items()}


@dataclass(frozen=True)
class CodebookSettings:
    """How a scene is brought to codebooks.

    Attributes:
        columns: How each quantized tensor of Gaussians is; the others stay as they are.
        n_steps: Steps of tuning against the full scene, one view each; 0 takes k-means as it comes.
        reassign_every: Steps from one choice of codes to the next.
        opacity_penalty: Weight of the mean opacity beside the mean squared error: pushes what is not needed out.
        seed: Of k-means and of the order of views.
    """

    columns: dict[str, QuantizerSettings] = dataclass_field(default_factory=_default_columns)
    n_steps: int = 200
    reassign_every: int = 50
    opacity_penalty: float = 0.0
    seed: int = 0


def fit_codebooks(
    gaussians: Gaussians,
    weights: Tensor,
    settings: CodebookSettings,
    teacher: Teacher | None = None,
    field: HashField | None = None,
) -> CodedGaussians:
    """Quantize `gaussians`, and tune them with the codebooks in place.

    Args:
        gaussians: The scene.
        weights: How much each Gaussian counts: its blend weights. [N]
        settings: Sizes and steps.
        teacher: Renders to match; None, or no steps, stops after k-means.
        field: Gives the colours, sh0 and shN side by side, to which codebooks add where there are some; is tuned too.
    """
    student = _Student(gaussians, weights, settings, field)
    if teacher is not None and settings.n_steps > 0:
        penalty = None
        if settings.opacity_penalty > 0:
            penalty = lambda: settings.opacity_penalty * student.values["opacity_logits"].sigmoid().mean()  # noqa: E731
        distill(student, student.leaves(), teacher, settings.n_steps, settings.seed, penalty)
    return student.coded()


class _Student:
    """Leaves and quantizers of a fit; called with the step it gives the scene to render."""

    def __init__(
        self, gaussians: Gaussians, weights: Tensor, settings: CodebookSettings, field: HashField | None
    ) -> None:
        self.settings = settings
        self.field = None if field is None else _trainable(field)
        self.shapes = {name: value.shape for name, value in gaussians.params().items()}
        # A Gaussian that no view saw still needs a code.
        loads = weights + 1e-4 * weights.mean() + 1e-12
        rows = canonical_rows(gaussians)
        if field is not None:
            rows |= color_residuals(gaussians, field)
        self.values = {name: value.clone().requires_grad_() for name, value in rows.items()}
        self.quantizers = {
            name: Quantizer(self.values[name].detach(), loads, column, settings.seed)
            for name, column in settings.columns.items()
            if self.values[name].shape[1] > 0
        }

    def leaves(self) -> list[Leaf]:
        """What Adam moves."""
        extent = float(self.values["means"].detach().std(dim=0).norm()) if len(self.values["means"]) > 1 else 1.0
        leaves = []
        if self.field is not None:
            leaves = [Leaf(value, FIELD_RATE) for value in (self.field.tables, *self.field.layers)]
        for name, value in self.values.items():
            rate = RATES[name] * (extent if name == "means" else 1.0)
            leaves.append(Leaf(value, rate))
            quantizer = self.quantizers.get(name)
            learnt = [] if quantizer is None else [p for p in quantizer.parameters() if p.requires_grad]
            if quantizer is not None and quantizer.settings.learn == "simvq":
                learnt = list(quantizer.maps)
            leaves += [Leaf(parameter, rate * CODE_RATE_SHARE) for parameter in learnt]
        return [leaf for leaf in leaves if leaf.value.numel() > 0]

    def __call__(self, step: int) -> Gaussians:
        rows = dict(self.values)
        for name, quantizer in self.quantizers.items():
            if step and step % self.settings.reassign_every == 0:
                quantizer.assign(self.values[name])
            quantizer.follow(self.values[name])
            rows[name] = quantizer(self.values[name])
        if self.field is not None:
            colors = self.field(self.values["means"].detach())
            for name, of_field in (("sh0", colors[:, :3]), ("shN", colors[:, 3:])):
                # Codes of colours are what is added to the field.
                rows[name] = of_field + rows[name] if name in self.quantizers else of_field
        return self._gaussians(rows)

    @torch.no_grad()
    def coded(self) -> CodedGaussians:
        columns = {
            name: CodedColumn(tuple(float16(part.detach()) for part in quantizer.codes()), quantizer.indices.clone())
            for name, quantizer in self.quantizers.items()
        }
        means, opacity_logits = self.values["means"].detach(), self.values["opacity_logits"].detach()[:, 0]
        field = None if self.field is None else _trainable(self.field, False)
        return CodedGaussians(means, opacity_logits, columns, field)

    def _gaussians(self, rows: dict[str, Tensor]) -> Gaussians:
        return Gaussians(**{name: value.reshape(self.shapes[name]) for name, value in rows.items()})


def _trainable(field: HashField, is_leaf: bool = True) -> HashField:
    tables, *layers = (value.detach().clone().requires_grad_(is_leaf) for value in (field.tables, *field.layers))
    return replace(field, tables=tables, layers=tuple(layers))


def color_residuals(gaussians: Gaussians, field: HashField) -> dict[str, Tensor]:
    """What is to be added to the values of a field to have the colours: sh0 [N, 3] and shN [N, 3 (K-1)]."""
    rows, colors = canonical_rows(gaussians), field(gaussians.means).detach()
    return {"sh0": rows["sh0"] - colors[:, :3], "shN": rows["shN"] - colors[:, 3:]}


def canonical_rows(gaussians: Gaussians) -> dict[str, Tensor]:
    """The stored tensors as rows [N, D]; quaternions of length one with w >= 0, so that equal turns have equal rows."""
    rows = {
        name: value.detach().reshape(len(gaussians), math.prod(value.shape[1:]))
        for name, value in gaussians.params().items()
    }
    quats = torch.nn.functional.normalize(rows["quats"], dim=1)
    rows["quats"] = torch.where(quats[:, :1] < 0, -quats, quats)
    return rows
