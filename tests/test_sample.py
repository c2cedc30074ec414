"""The bundled sample capture, read as a user's capture is: what its README promises."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from scene3d.core.capture import Capture
from scene3d.io.capture_files import read_capture
from scene3d.io.sample import sample_capture

ROOT = Path(__file__).resolve().parents[1]
MOST_BYTES = 6_000_000
NEAR = 0.01  # Points are off by 0.2 % of a distance of up to two metres, depth by half a millimetre.


@pytest.fixture(scope="module")
def capture() -> Capture:
    return read_capture(sample_capture())


@pytest.fixture(scope="module")
def textures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_textures", ROOT / "tools" / "sample_textures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def project(capture: Capture, view: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels [P, 2] of the points in front of a camera and inside its photo, their depths [P] and rows [P]."""
    cameras = capture.cameras
    in_cam = capture.points @ cameras.viewmats[view, :3, :3].T + cameras.viewmats[view, :3, 3]
    on_film = in_cam @ cameras.Ks[view].T
    pixels = on_film[:, :2] / on_film[:, 2:]
    size = cameras.sizes[view]
    rows = ((in_cam[:, 2] > 0) & (pixels >= 0).all(dim=1) & (pixels < size).all(dim=1)).nonzero()[:, 0]
    return pixels[rows].long(), in_cam[rows, 2], rows


def test_sample_is_small_enough_to_travel_with_the_code():
    assert sum(path.stat().st_size for path in sample_capture().rglob("*") if path.is_file()) <= MOST_BYTES


def test_sample_reads_without_notices(capture: Capture):
    assert capture.notices == ()
    assert (len(capture.train), len(capture.test)) == (42, 6)
    assert capture.cameras.sizes.unique(dim=0).tolist() == [[480, 360]]


def test_sample_has_no_masks_that_would_hide_its_background(capture: Capture):
    photo = capture.load(0)
    assert photo.mask is None
    assert photo.alpha is None


def test_every_view_sees_points_of_the_colours_it_shows(capture: Capture):
    for view in range(0, len(capture), 7):
        pixels, _, rows = project(capture, view)
        photo = capture.load(view).rgb
        shown = photo[pixels[:, 1], pixels[:, 0]].double()
        shown = shown / 255 if photo.dtype == torch.uint8 else shown
        off = (shown - capture.point_colors[rows].double() / 255).abs().mean(dim=1)
        assert len(rows) > 1000
        # Some points are hidden, most lie on edges. The photo next to the right one gives 0.11 and more.
        assert float(off.median()) < 0.08


def test_depth_of_test_views_agrees_with_the_points(capture: Capture):
    folder = sample_capture()
    told = json.loads((folder / "transforms_depth.json").read_text(encoding="utf-8"))
    assert len(told["frames"]) == len(capture.test)
    for view, frame in zip(capture.test, told["frames"], strict=True):
        steps = torch.from_numpy(np.asarray(Image.open(folder / frame["depth_file_path"])).astype(np.float32))
        depth = steps * told["depth_unit_scale_factor"]
        pixels, depths, _ = project(capture, view)
        gap = depths - depth[pixels[:, 1], pixels[:, 0]]
        # Some points are hidden; in front are those whose pixel's centre looks past an edge. Depth of another view
        # agrees with 6 % of the points at most.
        assert float((gap.abs() < NEAR).float().mean()) > 0.6
        assert float((gap < -NEAR).float().mean()) < 0.1


def test_every_place_in_a_test_view_is_near_a_training_camera(capture: Capture):
    centers = capture.cameras.centers()
    axes = capture.cameras.viewmats[:, 2, :3]
    for view in capture.test:
        others = list(capture.train)
        near = (centers[others] - centers[view]).norm(dim=1) < 0.35
        along = axes[others] @ axes[view] > np.cos(np.radians(20))
        assert int((near & along).sum()) >= 2


def test_soften_removes_fine_stripes_and_keeps_broad_ones(textures: ModuleType):
    x = (np.arange(256) + 0.5) / 256
    for period, low, high in ((0.003, 0.0, 0.01), (0.05, 0.95, 1.0)):
        stripes = np.repeat((0.5 + 0.5 * np.sin(2 * np.pi * x * 0.3 / period))[None, :, None], 8, axis=0)
        left = np.ptp(textures.soften(stripes, (0.3, 0.3))) / np.ptp(stripes)
        assert low <= left <= high


def test_soften_keeps_the_mean_colour_and_the_size(textures: ModuleType):
    colours = np.random.default_rng(0).random((7, 9, 3))
    soft = textures.soften(colours, (0.2, 0.1))
    assert soft.shape == colours.shape
    np.testing.assert_allclose(soft.mean(axis=(0, 1)), colours.mean(axis=(0, 1)), atol=1e-12)
