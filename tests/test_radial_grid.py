"""Pictures and signed distances as grids with radial bases: they are learned, within their numbers, and repeat."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mesh_shapes import box
from PIL import Image

from scene3d.core.mesh import Mesh
from scene3d.meshing.radial_sdf import fit_radial_sdf, mesh_of_radial_sdf
from scene3d.ops import radial_grid
from scene3d.ops.image import psnr
from scene3d.ops.radial_grid import RadialGridSettings, fit_radial_grid
from scene3d.ops.triangles import signed_distance
from scene3d.recon.radial_image import fit_image, image_of

SETTINGS = RadialGridSettings(n_numbers=8000, n_steps=60, n_points=2048)


def picture() -> torch.Tensor:
    """Fine stripes in one quarter, slow shades elsewhere. [64, 64, 3]"""
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
    image = torch.stack([x, y, 0.5 * (x + y)], dim=2) * 0.8
    image[:24, :24] += 0.2 * ((x + 2 * y)[:24, :24, None] * 60).sin()
    return image.clamp(0, 1)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_numbers_asked_for_are_kept(share: float):
    model = fit_image(picture(), replace(SETTINGS, share=share, n_steps=1))
    assert 0.93 * 8000 < model.n_numbers <= 8000
    assert (model.bases is not None) == (share > 0)


def test_bases_help_where_detail_is_uneven():
    image = picture()
    scores = [
        psnr(image_of(fit_image(image, settings), 64, 64), image)
        for settings in (replace(SETTINGS, share=0.0, n_numbers=5000), replace(SETTINGS, n_numbers=5000))
    ]
    assert scores[1] > scores[0] + 1
    assert scores[1] > 20


def test_bases_gather_at_edges_of_a_picture():
    model = fit_image(picture(), replace(SETTINGS, n_steps=1, learns_places=False))
    assert model.bases is not None
    inside = (model.bases.centers < 24 / 64 + 0.03).all(dim=1).float().mean()
    assert inside > 0.4  # of 14 % of the area


def test_a_fit_repeats_and_a_picture_has_any_size():
    first, second = (fit_image(picture(), replace(SETTINGS, n_steps=5)) for _ in range(2))
    assert torch.equal(image_of(first, 10, 30), image_of(second, 10, 30))
    assert image_of(first, 10, 30).shape == (10, 30, 3)


def test_places_move_only_where_they_are_learned():
    kept, moved = (fit_image(picture(), replace(SETTINGS, n_steps=25, learns_places=v)) for v in (False, True))
    first = fit_image(picture(), replace(SETTINGS, n_steps=1, learns_places=False))
    assert first.bases is not None
    assert kept.bases is not None
    assert moved.bases is not None
    assert torch.equal(kept.bases.centers, first.bases.centers)
    assert not torch.equal(moved.bases.centers, first.bases.centers)
    # Lists are those of where bases are in the end.
    assert torch.equal(radial_grid.listed(moved.bases.centers, moved.bases.shapes, (1, 8)).items, moved.bases.items)


def test_signed_distances_of_a_box_are_learned_and_meshed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scene3d.meshing.radial_sdf.N_SAMPLES", 20_000)
    solid = box((0.5, 0.3, 0.4))
    sdf = fit_radial_sdf(solid, replace(SETTINGS, n_steps=150))
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) * 1.1 - 0.55
    truth = signed_distance(solid, points)
    near = truth.abs() < 0.05
    assert (sdf.distance(points)[near] - truth[near]).abs().mean() < 0.01
    mesh = mesh_of_radial_sdf(sdf, 0.04)
    assert (mesh.vertices.amax(dim=0) - torch.tensor([0.5, 0.3, 0.4])).abs().max() < 0.05
    with pytest.raises(ValueError, match="voxel_size: expected at most a quarter of the box"):
        mesh_of_radial_sdf(sdf, 1.0)


def test_wrong_input_is_refused():
    for change, words in (
        ({"n_numbers": 10}, "n_numbers: expected 5,000 to 50,000,000, got 10"),
        ({"share": 1.0}, "share: expected 0 to 0.9"),
        ({"waves": 0.1}, "waves: expected 0 or 1 to 1000"),
        ({"n_steps": 0}, "n_steps"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(SETTINGS, **change)
    with pytest.raises(ValueError, match="expected finite numbers"):
        fit_radial_grid(torch.rand(9, 2), torch.full((9, 1), torch.nan), torch.ones(9), SETTINGS)
    with pytest.raises(ValueError, match="image: expected 2x2 to"):
        fit_image(torch.zeros(1, 5, 3), SETTINGS)
    with pytest.raises(ValueError, match="mesh: expected triangles, got none"):
        fit_radial_sdf(Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64)), SETTINGS)


def test_the_tool_reports_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
    from bench_radial import Config, main

    Image.fromarray((picture() * 255).byte().numpy()).save(tmp_path / "in.png")
    only = ("grids alone", "bases by k-means, sines")
    main(Config(tmp_path / "in.png", numbers=8000, steps=20, only=only, out=tmp_path / "out.png"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| 64x64 pixels")
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {name}" for name in only]
    assert Image.open(tmp_path / "out.png").size == (64, 64)
