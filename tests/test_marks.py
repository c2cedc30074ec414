"""What compression made of each Gaussian: read from the file in the order of the scene, and shown as colours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_scenes import blob
from test_s3d_context import encoded, random_gaussians
from tiny_capture import tiny_scene

from scene3d.core.scene import SceneInfo
from scene3d.io.registry import read_scene, write_scene
from scene3d.io.s3d_codebook import CodedColumn, CodedGaussians, encode_codebook, float16
from scene3d.io.s3d_container import write_container
from scene3d.io.s3d_grid import encode_grid, grid_rows, to_levels
from scene3d.io.s3d_marks import Marks, Plane, read_marks, read_planes
from scene3d.ops import sh
from scene3d.view.draw import Stock
from scene3d.view.look import Cut
from scene3d.view.marks import colors, painted, sheet

N = 50


@pytest.fixture
def codebook_file(tmp_path: Path) -> Path:
    scene = blob(N, 0)
    g = torch.Generator().manual_seed(0)
    columns = {}
    for name, width in {"quats": 4, "log_scales": 3, "sh0": 3}.items():
        codes = (float16(torch.randn(7, width, generator=g)),)
        columns[name] = CodedColumn(codes, torch.randint(7, (1, N), generator=g))
    container, _ = encode_codebook(CodedGaussians(scene.means, scene.opacity_logits, columns), 12, 6, SceneInfo())
    write_container(container, tmp_path / "book.s3d")
    return tmp_path / "book.s3d"


@pytest.fixture
def grid_file(tmp_path: Path) -> Path:
    levels = {name: to_levels(rows, 9) for name, rows in grid_rows(blob(N, 1), False).items()}
    write_container(encode_grid(levels, 8, False, SceneInfo()), tmp_path / "grid.s3d")
    return tmp_path / "grid.s3d"


def test_gaussians_of_one_code_have_one_value(codebook_file: Path):
    marks = read_marks(codebook_file)
    assert list(marks) == ["code of rotation", "code of scale", "code of colour"]
    scene = read_scene(codebook_file).splats()
    index = marks["code of colour"].values
    assert len(index) == N
    for code in index.unique():
        assert len(scene.sh0[index == code].unique(dim=0)) == 1
    assert "of 7 codes are used" in marks["code of colour"].note


def test_gaussians_that_matter_more_are_coded_with_more_precision(tmp_path: Path):
    gaussians = random_gaussians(200)
    container, packed, _ = encoded(gaussians)
    write_container(container, tmp_path / "context.s3d")
    marks = read_marks(tmp_path / "context.s3d")
    assert set(marks) <= {"precision of shape", "precision of colour"}
    values = marks["precision of shape"].values
    assert len(values) == len(packed) == 200
    assert (float(values.min()), float(values.max())) == (0, 1)


def test_planes_of_a_grid_show_the_attributes_in_their_cells(grid_file: Path):
    planes = read_planes(grid_file)
    assert list(planes) == ["position", "rotation", "scale", "opacities", "colour", "harmonics"]
    plane = planes["position"].pixels
    assert plane.shape == (7, 8, 3)
    means = read_scene(grid_file).splats().means
    unit = (means - means.amin(dim=0)) / (means.amax(dim=0) - means.amin(dim=0))
    assert float((plane.view(-1, 3)[:N] / 255 - unit).abs().max()) < 0.003
    assert "9 bits a level" in planes["position"].note


def test_places_of_a_grid_are_columns_and_rows(grid_file: Path):
    places = read_marks(grid_file)["place in the grid"].values
    assert places[0].tolist() == [0, 0]
    assert places[9].tolist() == pytest.approx([1 / 8, 1 / 7])


def test_planes_become_one_sheet():
    plane = _plane(3)
    assert sheet(plane).shape == (256, 256, 3)
    assert torch.equal(sheet(plane)[::64, ::64], plane.pixels)
    assert sheet(_plane(1)).shape == (256, 256, 3)
    assert sheet(_plane(45)).shape == (3 * 4 * 13, 5 * 4 * 13, 3)


def _plane(n_channels: int) -> Plane:
    return Plane(torch.arange(16 * n_channels, dtype=torch.uint8).view(4, 4, n_channels), "")


def test_files_without_codes_have_no_marks(tmp_path: Path):
    for name in ("plain.ply", "lossless.s3d"):
        write_scene(tiny_scene(), tmp_path / name)
        assert read_marks(tmp_path / name) == {}
        assert read_planes(tmp_path / name) == {}


def test_labels_that_follow_each_other_look_different():
    rgb = colors(Marks("label", torch.arange(64), ""))
    assert bool(((rgb >= 0) & (rgb <= 1)).all())
    assert float((rgb[1:] - rgb[:-1]).norm(dim=1).min()) > 0.3


def test_painted_scenes_have_the_colours_of_their_marks():
    scene = tiny_scene()
    marks = Marks("amount", torch.linspace(0, 1, 30), "")
    flat = painted(scene, marks).splats()
    assert torch.allclose(sh.to_rgb(flat.sh0[:, 0]), colors(marks), atol=1e-6)
    assert flat.sh_degree == 0
    with pytest.raises(ValueError, match="marks: expected one for each of 30 Gaussians, got 5"):
        painted(scene, Marks("label", torch.arange(5), ""))


def test_marks_follow_their_gaussians_through_a_cut():
    scene = tiny_scene()
    marks = Marks("label", torch.arange(30), "")
    stock = Stock((scene,), marks=({"code": marks},))
    cut = Cut(0.5)
    keep = scene.splats().opacities >= 0.5
    shown = stock.shown(0, cut, "code").splats()
    assert torch.allclose(sh.to_rgb(shown.sh0[:, 0]), colors(marks)[keep], atol=1e-6)
    assert torch.equal(stock.shown(0, cut).splats().sh0, scene.splats().sh0[keep])
