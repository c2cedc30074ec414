"""Codebooks for what of a field is hardly seen (VQRF, Li et al. 2023): importance, pruning, codes, tuning.

Nodes of the planes of colour are sorted by the rendering weight that falls on them. The last thousandths of it are
pruned, what carries most keeps rows of its own, and the many nodes between share codes. Then what is left to move
(codes, lines, decoder) is tuned against renders of the field as it was, along rays of the views that matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scene3d.compress.field_importance import plane_importance
from scene3d.core.cameras import Cameras
from scene3d.core.fields import FACTORS, Field, decoder_of
from scene3d.core.progress import Progress
from scene3d.io.field_bases import code_bases
from scene3d.io.field_codes import CODE, EMPTY, LAST_ROW, ROW, CodedPlane
from scene3d.io.field_places import used_nodes
from scene3d.io.field_steps import Steps, rank_steps
from scene3d.ops.kmeans import kmeans
from scene3d.ops.rays import camera_rays
from scene3d.ops.threads import single_threaded_torch
from scene3d.render.field_cpu import NativeDecoder, NativeField, empty_marks, shade_backward
from scene3d.render.field_march import shade

NODES_PER_CODE, MAX_CODES = 24, 1024
KMEANS_STEPS = 8
TUNE_RAYS = 4096
TUNE_RATES = {"lines": 2e-3, "book": 5e-3, "decoder": 5e-4}


@dataclass(frozen=True)
class Shares:
    """Which nodes are kept how, by the share of all rendering weight that those seen more carry.

    Attributes:
        fine: Below it rows have the finest steps; beyond, steps grow as weights fall. At equal bytes coarser steps for
            all of them lose less.
        rows: Below it nodes have rows of their own.
        kept: Below it nodes have codes; beyond it they are pruned.
    """

    fine: float = 1.0
    rows: float = 0.99
    kept: float = 0.997


@dataclass(frozen=True)
class CodedField:
    """A field and how its planes of colour are kept.

    Attributes:
        field: What a reader sees but for rounding; ranks in order.
        planes: xy, xz, yz.
    """

    field: Field
    planes: tuple[CodedPlane, ...]


@torch.no_grad()
def code_field(field: Field, views: Cameras, steps: Steps, shares: Shares = Shares()) -> CodedField:
    """Prune and code the planes of colour of a vm or rbf field.

    Args:
        field: Float32 on the CPU, its ranks in order.
        views: That matter.
        steps: Of rounding; distances between rows are measured in them.
        shares: What is pruned, coded and kept.
    """
    # Bases stand in the order of the file from here on.
    field, _ = code_bases(field)
    gains, planes, colors = field.decoder.basis.norm(dim=1), [], list(field.color)
    for i, weight in enumerate(plane_importance(field, views)):
        used = used_nodes(field.occupancy, weight.shape, FACTORS["vm"][i])
        rows, loads = colors[i][used], weight[used]
        unit = rank_steps(field, field.color, i, gains, steps.color)
        classes = _classes(loads, shares)
        is_code = classes == CODE
        n_codes = min(MAX_CODES, int(is_code.sum()) // NODES_PER_CODE)
        if n_codes == 0:
            classes[is_code] = ROW
            plane = CodedPlane(classes, torch.zeros(0, dtype=torch.long), torch.zeros(0, rows.shape[1]))
        else:
            centers, labels = kmeans(rows[is_code] / unit, n_codes, loads[is_code], KMEANS_STEPS)
            plane = CodedPlane(classes, labels, centers * unit)
        planes.append(plane)
        colors[i] = _shown(colors[i], used, plane)
    return CodedField(replace(field, color=tuple(colors)), tuple(planes))


@torch.no_grad()
def tune(coded: CodedField, rounded: Field, teacher: Field, views: Cameras, n_steps: int, seed: int = 0) -> CodedField:
    """Move codes, lines and decoder so that renders come nearer to those of the teacher.

    Args:
        coded: What is tuned.
        rounded: What a reader sees of it: planes stay as they are there.
        teacher: The field before it was made small.
        views: Whose rays are compared.
        n_steps: Of Adam.
        seed: Of the rays.
    """
    tuning = _Tuning(coded, rounded, NativeField(teacher), NativeDecoder(teacher.decoder))
    groups = [{"params": params, "lr": TUNE_RATES[name]} for name, params in tuning.params().items()]
    optimizer = torch.optim.Adam(groups, eps=1e-15)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / max(n_steps, 1)))
    generator = torch.Generator().manual_seed(seed)
    with single_threaded_torch(), Progress(n_steps, "tuning") as progress:
        for _ in range(n_steps):
            rays = _random_rays(views, generator)
            tuning.find_grads(*rays, torch.rand(TUNE_RAYS, 3, generator=generator))
            optimizer.step()
            decay.step()
            tuning.show_books()
            progress.advance()
    return tuning.result()


class _Tuning:
    """What is tuned, and its gradients.

    Attributes:
        factors: Of the field as a reader sees it; lines and codes move in them.
        books: Of the planes of colour.
        tensors: Of the decoder.
    """

    def __init__(self, coded: CodedField, rounded: Field, old: NativeField, old_decoder: NativeDecoder) -> None:
        self.coded, self.old, self.old_decoder = coded, old, old_decoder
        self.factors = [value.clone() for value in rounded.factors()]
        self.books = [plane.book.clone() for plane in coded.planes]
        self.tensors = [value.clone() for value in rounded.decoder.tensors()]
        self.first = len(rounded.density)
        shapes = [value.shape[:-1] for value in self.factors[self.first : self.first + 3]]
        self.used = [used_nodes(rounded.occupancy, shape, FACTORS["vm"][i]) for i, shape in enumerate(shapes)]
        self.native = NativeField(rounded.with_factors(tuple(self.factors)))
        self.tape = self.native.new_tape()

    def params(self) -> dict[str, list[Tensor]]:
        """Tensors to move, by their rates."""
        return {"lines": self._lines(self.factors), "book": self.books, "decoder": self.tensors}

    def find_grads(self, origins: Tensor, directions: Tensor, background: Tensor) -> None:
        """Gradients of the mean squared difference to the teacher along rays, over a background."""
        truth = self.old.march(origins, directions, None)
        target = shade(self.old_decoder.decode, truth, directions)
        grads = [torch.zeros_like(value) for value in self.factors]
        sums = self.native.march(origins, directions, None, self.tape)
        decoder = NativeDecoder(decoder_of(self.tensors))
        colors = shade(decoder.decode, sums, directions)
        error = colors - target - (sums.opacity - truth.opacity)[:, None] * background
        v_rgb = error * (2 / error.numel())
        v, v_decoder = shade_backward(decoder, sums, directions, v_rgb)
        v.opacity.sub_((v_rgb * background).sum(dim=1))
        self.native.march_backward(self.tape, v, grads, empty_marks(grads))
        v_books = []
        for i, plane in enumerate(self.coded.planes):
            v_rows = grads[self.first + i][self.used[i]][plane.classes == CODE]
            v_books.append(torch.zeros_like(self.books[i]).index_add_(0, plane.labels, v_rows))
        moved = [value for values in self.params().values() for value in values]
        for value, grad in zip(moved, [*self._lines(grads), *v_books, *v_decoder], strict=True):
            value.grad = grad

    def show_books(self) -> None:
        """Put the codes into the planes, in place: native code reads the factors where they are."""
        for i, plane in enumerate(self._planes()):
            self.factors[self.first + i].copy_(_shown(self.factors[self.first + i], self.used[i], plane))

    def result(self) -> CodedField:
        """Rows of their own go on from what they were before rounding: they fall into the same steps."""
        field, planes = self.coded.field, self._planes()
        shown = [_shown(field.color[i], self.used[i], planes[i]) for i in range(3)]
        lines = [line.detach() for line in self._lines(self.factors)]
        n = self.first - 3
        density, color = (*field.density[:3], *lines[:n]), (*shown, *lines[n:])
        return CodedField(replace(field, density=density, color=color, decoder=decoder_of(self.tensors)), planes)

    def _lines(self, factors: list[Tensor]) -> list[Tensor]:
        """All but the planes, of density, then of colour: lines, and the rows of bases."""
        return [*factors[3 : self.first], *factors[self.first + 3 :]]

    def _planes(self) -> tuple[CodedPlane, ...]:
        return tuple(replace(plane, book=book) for plane, book in zip(self.coded.planes, self.books, strict=True))


def _classes(loads: Tensor, shares: Shares) -> Tensor:  # [U] -> [U] int64
    order = loads.argsort(descending=True)
    before = loads[order].cumsum(dim=0) - loads[order]
    share = before / before[-1].clamp_min(1e-12) if len(before) else before
    # Errors count by the weight: steps go with one over its root. From class to class it falls to a half.
    fine = loads[order[(share < shares.fine).sum() - 1]] if len(before) else loads.sum()
    coarser = torch.log2(fine / loads.clamp_min(1e-12)).floor().clamp(0, LAST_ROW - ROW).long()
    classes = torch.full((len(loads),), EMPTY)
    classes[order[share < shares.kept]] = CODE
    own = order[share < shares.rows]
    classes[own] = ROW + coarser[own]
    return classes


def _shown(plane: Tensor, used: Tensor, coded: CodedPlane) -> Tensor:
    """A plane as a reader sees it, rows of their own as they are. [n_b, n_a, R]"""
    rows = plane[used]
    rows[coded.classes == EMPTY] = 0
    rows[coded.classes == CODE] = coded.book[coded.labels]
    shown = torch.zeros_like(plane)
    shown[used] = rows
    return shown


def _random_rays(views: Cameras, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    view = torch.randint(len(views), (TUNE_RAYS,), generator=generator)
    place = torch.rand(TUNE_RAYS, 2, generator=generator)
    columns, rows = (place * views.sizes[view]).long().unbind(dim=1)
    return camera_rays(views, view, columns, rows)
