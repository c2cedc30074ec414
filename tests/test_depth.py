"""Depth maps beside photos: they are found, come in the units of the scene, and keep a field where they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from strategies import front_camera, one_gaussian
from test_field_fit import SETTINGS, ball_capture
from tiny_capture import tiny_scene, write_tiny_capture

from scene3d.core.errors import CaptureError, FormatError
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.recon.depth_terms import depth_error
from scene3d.recon.field_fit import fit_field
from scene3d.recon.field_losses import distance_grads
from scene3d.recon.field_rays import RayPool
from scene3d.recon.fit import fit
from scene3d.recon.initialize import initialize
from scene3d.recon.settings import FitSettings
from scene3d.render import field_cpu
from scene3d.render.field import render_field
from scene3d.render.field_march import RaySums
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings

if not field_cpu.is_available():
    pytest.skip("the native module is not built", allow_module_level=True)

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"
RADIUS = 0.6


def ball_depth(view: int) -> torch.Tensor:
    """z of the ball of the capture in a view, 0 beside it."""
    capture = ball_capture()
    camera = capture.cameras.select([view])
    row, column = torch.meshgrid(*(torch.arange(n) + 0.5 for n in (camera.height(), camera.width())), indexing="ij")
    K = camera.Ks[0]
    rays = torch.stack([(column - K[0, 2]) / K[0, 0], (row - K[1, 2]) / K[1, 1], torch.ones_like(row)], dim=2)
    center = camera.viewmats[0, :3, 3]
    square, along = (rays * rays).sum(dim=2), rays @ center
    inside = along**2 - square * (center @ center - RADIUS**2)
    return torch.where(inside > 0, (along - inside.clamp_min(0).sqrt()) / square, 0.0)


def test_the_sample_says_how_far_things_are():
    capture = read_capture(SAMPLE / "transforms_depth.json", CaptureOptions(data_factor=2))
    depth = capture.load_depth(1)
    assert depth is not None
    assert depth.shape == capture.load(1).rgb.shape[:2]
    camera, points = capture.cameras.select([1]), capture.points
    in_cam = points @ camera.viewmats[0, :3, :3].T + camera.viewmats[0, :3, 3]
    pixels = (in_cam @ camera.Ks[0].T)[:, :2] / in_cam[:, 2:]
    inside = ((pixels >= 0) & (pixels < camera.sizes[0])).all(dim=1) & (in_cam[:, 2] > 0)
    column, row = pixels[inside].long().unbind(dim=1)
    off = (depth[row, column] / in_cam[inside, 2] - 1).abs()
    # Points behind something are not seen; the others have noise of 0.2 %.
    assert (off < 0.02).float().mean() > 0.7


def test_captures_without_maps_have_none():
    assert read_capture(SAMPLE).load_depth(0) is None


@pytest.fixture
def capture_folder(tmp_path: Path) -> Path:
    folder = write_tiny_capture(tmp_path / "capture", tiny_scene())
    path = folder / "transforms.json"
    data = json.loads(path.read_text())
    frame = data["frames"][0]
    frame |= {"depth_file_path": "depth.png"}
    path.write_text(json.dumps(data))
    return folder


def test_units_are_millimetres_unless_the_file_says_otherwise(capture_folder: Path):
    values = np.full((8, 6), 1500, dtype=np.uint16)
    values[0] = 0
    Image.fromarray(values).save(capture_folder / "depth.png")
    capture = read_capture(capture_folder)
    index = next(i for i in range(len(capture)) if capture.load_depth(i) is not None)
    depth = capture.load_depth(index)
    assert depth.shape == capture.load(index).rgb.shape[:2]
    assert depth.unique().tolist() == pytest.approx([0.0, 1.5])
    path = capture_folder / "transforms.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "depth_unit_scale_factor": 0.01}))
    assert float(read_capture(capture_folder).load_depth(index).amax()) == pytest.approx(15.0)
    path.write_text(json.dumps({**data, "depth_unit_scale_factor": -1}))
    with pytest.raises(FormatError, match="depth_unit_scale_factor: expected more than 0, got -1"):
        read_capture(capture_folder)


def test_colour_pictures_and_text_are_no_depth_maps(capture_folder: Path):
    Image.new("RGB", (6, 8)).save(capture_folder / "depth.png")
    capture = read_capture(capture_folder)
    indices = range(len(capture))
    with pytest.raises(CaptureError, match="expected one number a pixel"):
        [capture.load_depth(i) for i in indices]
    (capture_folder / "depth.png").write_text("no picture")
    with pytest.raises(CaptureError, match="no depth map can be read from it"):
        [capture.load_depth(i) for i in indices]


def test_rays_know_the_distance_along_them():
    capture = replace(ball_capture(), load_depth=ball_depth)
    batch = RayPool(capture).draw(400, torch.Generator().manual_seed(0))
    assert batch.distance is not None
    hit = batch.distance > 0
    assert 0.05 < hit.float().mean() < 0.95
    places = batch.origins + batch.directions * batch.distance[:, None]
    torch.testing.assert_close(places[hit].norm(dim=1), torch.full((int(hit.sum()),), RADIUS), rtol=1e-4, atol=1e-4)


def test_gradients_of_distances_are_those_of_the_loss():
    generator = torch.Generator().manual_seed(0)
    distance = 2 + torch.rand(50, generator=generator, dtype=torch.float64)
    distance[::7] = 0
    opacity = torch.rand(50, generator=generator, dtype=torch.float64).requires_grad_()
    gathered = (opacity.detach() * (distance + 0.2 * torch.randn(50, generator=generator))).requires_grad_()
    known = distance > 0
    loss = 0.3 * ((gathered - opacity * distance)[known] / distance[known]).square().mean()
    want = torch.autograd.grad(loss, (opacity, gathered))
    got = distance_grads(RaySums(torch.zeros(50, 1), opacity.detach(), gathered.detach()), distance, None, 0.3)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_depth_maps_bring_surfaces_to_their_places():
    few = replace(ball_capture(), train=(1, 8, 13))
    errors = []
    for capture in (few, replace(few, load_depth=ball_depth)):
        field = fit_field(capture, replace(SETTINGS, max_steps=120, depth=1.0)).field
        off = []
        for view in (0, 5, 10, 15):
            render = render_field(field, capture.cameras.select([view]), RasterSettings(with_depth=True))
            assert render.depth is not None
            depth = ball_depth(view)
            seen = (depth > 0) & (render.alpha[0, ..., 0] > 0.5)
            off.append((render.depth[0, ..., 0] - depth)[seen].abs().mean())
        errors.append(float(torch.stack(off).mean()))
    assert errors[1] < 0.8 * errors[0], errors


def test_the_error_of_depth_draws_splats_to_the_map():
    wall, camera = one_gaussian((0.0, 0.0, 4.0), (2.0, 2.0, 0.01), 0.9), front_camera()
    for there, moves in ((3.8, 1.0), (4.4, -1.0)):
        means = wall.means.clone().requires_grad_()
        render = rasterize(replace(wall, means=means), camera, RasterSettings(with_depth=True))
        depth = torch.full((2 * camera.height(), 2 * camera.width()), there)
        depth[: camera.height()] = 0.0
        error = depth_error(render, depth)
        error.backward()
        alpha = render.alpha[0, camera.height() // 2 + 1 :].mean()
        want = 0.5 * float((alpha.detach() * (4.0 / there - 1)) ** 2)
        assert error.item() == pytest.approx(want, rel=0.1)
        assert moves * float(means.grad[0, 2]) > 0
    assert float(depth_error(render, torch.zeros(4, 4)).detach()) == 0


def test_depth_maps_change_a_fit_of_splats():
    capture = replace(ball_capture(), load_depth=lambda view: ball_depth(view) if view != 8 else None)
    capture = replace(capture, train=(1, 8, 13))
    fits = [
        fit(capture, initialize(capture, 0), FitSettings(max_steps=4, depth_weight=w)).gaussians for w in (0.0, 1.0)
    ]
    assert not torch.equal(fits[0].means, fits[1].means)


def test_a_weight_of_depth_without_maps_is_refused():
    with pytest.raises(CaptureError, match="no training photo has a depth map"):
        fit(ball_capture(), initialize(ball_capture(), 0), FitSettings(max_steps=1, depth_weight=0.1))
    with pytest.raises(ValueError, match="depth_weight: expected 0 or more, got -1"):
        FitSettings(depth_weight=-1)
