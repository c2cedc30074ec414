"""Points for captures that come with cameras only."""

import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_capture import tiny_capture, tiny_scene

from scene3d.core.capture import Capture
from scene3d.core.errors import BackendUnavailable, CaptureError
from scene3d.io.capture_files import CaptureOptions, read_capture
from scene3d.io.sample import sample_capture
from scene3d.recon import triangulate
from scene3d.recon.initialize import MIN_POINTS
from scene3d.recon.pose_known import KnownCamera, near_pairs

TINY = tiny_capture(tiny_scene())


def no_progress(step: str, done: int, total: int) -> None:
    pass


def camera_at(angle_deg: float, distance: float = 4.0) -> KnownCamera:
    """A camera on a circle around the origin, y down, that looks at the origin."""
    a = math.radians(angle_deg)
    forward = np.array([-math.sin(a), 0, -math.cos(a)])
    right = np.array([-math.cos(a), 0, math.sin(a)])
    viewmat = np.eye(4)
    viewmat[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    viewmat[:3, 3] = -viewmat[:3, :3] @ (-forward * distance)
    return KnownCamera(tuple(viewmat.flatten().tolist()), (100.0, 100.0, 50.0, 50.0), 100, 100)


def test_pairs_are_of_cameras_that_look_the_same_way():
    pairs = near_pairs([camera_at(angle) for angle in (0, 30, 180, 200)])
    assert pairs == {(0, 1), (2, 3)}


def test_every_camera_of_a_ring_is_paired_with_its_neighbours():
    n = 36
    pairs = near_pairs([camera_at(360 * i / n) for i in range(n)])
    assert {(min(i, (i + 1) % n), max(i, (i + 1) % n)) for i in range(n)} <= pairs
    assert len(pairs) < n * (n - 1) / 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"points": torch.zeros(MIN_POINTS, 3)}, False),
        ({"has_alpha": True}, False),
    ],
)
def test_points_are_searched_where_there_is_nothing_to_start_from(changes: dict, expected: bool):
    large = replace(TINY.cameras, sizes=TINY.cameras.sizes * 10)
    assert triangulate.needs_points(replace(TINY, cameras=large, **changes)) == expected


def test_tiny_photos_are_not_searched():
    assert not triangulate.needs_points(TINY)


@pytest.mark.parametrize("error", [CaptureError("photos", "nothing fits"), BackendUnavailable("pycolmap", "missing")])
def test_failure_is_said_and_leaves_the_capture_as_it_is(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(triangulate, "triangulate", fail)
    with caplog.at_level(logging.WARNING):
        capture = triangulate.with_points(TINY, lambda: TINY, tmp_path / "points.npz", 1, 0, no_progress)
    assert capture is TINY
    assert "starting from random points" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_points_found_once_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[Capture] = []

    def find(capture: Capture, *args: object) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(capture)
        return torch.rand(7, 3), torch.zeros(7, 3, dtype=torch.uint8)

    monkeypatch.setattr(triangulate, "triangulate", find)
    first, again = (
        triangulate.with_points(TINY, lambda: TINY, tmp_path / "points.npz", 1, 0, no_progress) for _ in range(2)
    )
    assert len(calls) == 1
    assert torch.equal(first.points, again.points)


def test_damaged_points_file_is_named(tmp_path: Path):
    (tmp_path / "points.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(CaptureError, match=r"points\.npz: cannot read the points kept there.*Delete the file"):
        triangulate.with_points(TINY, lambda: TINY, tmp_path / "points.npz", 1, 0, no_progress)


def test_points_of_the_sample_lie_where_its_cameras_see_their_colours():
    pytest.importorskip("pycolmap")
    whole = read_capture(sample_capture(), CaptureOptions(max_size=480))
    views = list(range(6))
    capture = replace(whole, cameras=whole.cameras.select(views), train=tuple(views), test=())
    points, colors = triangulate.triangulate(capture, 1, 0)
    assert len(points) > 50
    differences = []
    for view in views:
        viewmat, K = capture.cameras.viewmats[view].float(), capture.cameras.Ks[view].float()
        in_cam = points @ viewmat[:3, :3].T + viewmat[:3, 3]
        pixels = in_cam @ K.T
        column, row = (pixels[:, 0] / pixels[:, 2]).long(), (pixels[:, 1] / pixels[:, 2]).long()
        photo = capture.load(view).rgb
        seen = (in_cam[:, 2] > 0) & (column >= 0) & (column < photo.shape[1]) & (row >= 0) & (row < photo.shape[0])
        shown = photo[row[seen], column[seen]].float()
        differences.append((shown - colors[seen].float()).abs().mean(dim=1))
    # Of unrelated pixels of a photo the median difference is about 50.
    assert torch.cat(differences).median() < 20
