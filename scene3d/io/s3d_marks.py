"""What compression made of each Gaussian of an .s3d file: its codes, its place in the grid, its class; to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from scene3d.io import s3d_codebook, s3d_context, s3d_grid
from scene3d.io.s3d_container import Container, read_container

Kind = Literal["label", "amount", "place"]
WORDS = {"quats": "rotation", "log_scales": "scale", "sh0": "colour", "shN": "harmonics", "means": "position"}


@dataclass(frozen=True)
class Marks:
    """One fact about each of N Gaussians, in the order in which the file gives them.

    Attributes:
        kind: label = whole numbers that stand for nothing, amount = 0 to 1, place = column and row, 0 to 1.
        values: [N], of places [N, 2]
        note: What it says, in one sentence.
    """

    kind: Kind
    values: Tensor
    note: str


@dataclass(frozen=True)
class Plane:
    """One attribute of a grid as a picture, cells in their places, channels beside each other.

    Attributes:
        pixels: [H, W, C] uint8
        note: What it is.
    """

    pixels: Tensor
    note: str


def read_marks(path: Path) -> dict[str, Marks]:
    """Every fact that the file holds, by name; none where it is no .s3d or its codec has no such facts.

    Raises:
        FormatError: the file is damaged.
    """
    if path.suffix.lower() != ".s3d":
        return {}
    container = read_container(path)
    if container.codec == s3d_codebook.CODEC:
        return _of_codebook(container, path)
    if container.codec == s3d_context.CODEC:
        return _of_context(container, path)
    return _of_grid(container, path) if container.codec == s3d_grid.CODEC else {}


def read_planes(path: Path) -> dict[str, Plane]:
    """The attributes of a grid as pictures; none where the file holds no grid.

    Raises:
        FormatError: the file is damaged.
    """
    if path.suffix.lower() != ".s3d":
        return {}
    container = read_container(path)
    if container.codec != s3d_grid.CODEC:
        return {}
    levels, width = s3d_grid.read_levels(container, path)
    planes = {}
    for name, attribute in levels.items():
        size = len(container.chunks.get(name, b"")) + len(container.chunks.get(f"{name}.low", b""))
        bits = 8 * size / max(container.n_items, 1)
        note = f"{WORDS.get(name, name)}: {attribute.n_bits} bits a level, {bits:.1f} bits a Gaussian in the file"
        planes[WORDS.get(name, name)] = Plane(_picture(attribute, width), note)
    return planes


def _of_codebook(container: Container, path: Path) -> dict[str, Marks]:
    found = {}
    for name, stages in s3d_codebook.read_indices(container, path).items():
        for stage, index in enumerate(stages):
            word = WORDS[name] if len(stages) == 1 else f"{WORDS[name]}, stage {stage + 1}"
            used = len(torch.unique(index))
            n_codes = container.meta["codes"][name][stage]
            size = len(container.chunks[f"{name}.{stage}.index"])
            note = f"{used:,} of {n_codes:,} codes are used, {8 * size / max(len(index), 1):.1f} bits a Gaussian"
            found[f"code of {word}"] = Marks("label", index, note)
    return found


def _of_context(container: Container, path: Path) -> dict[str, Marks]:
    classes = torch.from_numpy(s3d_context.read_classes(container, path)).float()
    found = {}
    for column, word in enumerate(("shape", "colour")):
        values = classes[:, column]
        note = f"one class more: steps half as large; classes {int(values.min())} to {int(values.max())} occur"
        if len(values) and bool((values != values[0]).any()):
            spread = (values - values.min()) / (values.max() - values.min())
            found[f"precision of {word}"] = Marks("amount", spread, note)
    return found


def _of_grid(container: Container, path: Path) -> dict[str, Marks]:
    width = s3d_grid.read_levels(container, path)[1]
    index = torch.arange(container.n_items)
    height = max(1, -(-container.n_items // width))
    places = torch.stack([(index % width) / width, (index // width) / height], dim=1)
    return {"place in the grid": Marks("place", places, f"{width} columns, {height} rows")}


def _picture(levels: s3d_grid.Levels, width: int) -> Tensor:  # [H, W, C] uint8
    n, n_channels = levels.values.shape
    height = -(-n // width)
    # Few levels of many hold most of an attribute; where they lie between the bounds is what can be seen.
    pixels = torch.zeros(height * width, n_channels, dtype=torch.uint8)
    pixels[:n] = (levels.values.double() * (255 / (2**levels.n_bits - 1))).round().to(torch.uint8)
    return pixels.view(height, width, n_channels)
