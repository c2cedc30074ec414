"""Held-out photos beside meshes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mesh_shapes import box
from tiny_capture import tiny_capture, tiny_scene

from scene3d.core.capture import Capture, Photo
from scene3d.core.mesh import Mesh
from scene3d.meshing.held_out import held_out_score
from scene3d.meshing.picture import mesh_picture


def painted() -> Mesh:
    mesh = box((0.5, 0.4, 0.3))
    colors = (torch.arange(len(mesh.vertices) * 3).reshape(-1, 3) * 11 % 256).to(torch.uint8)
    return replace(mesh, colors=colors)


def photographed(mesh: Mesh, with_alpha: bool) -> Capture:
    """A capture whose photos show the mesh."""
    capture = tiny_capture(tiny_scene())

    def load(i: int) -> Photo:
        rgb, alpha = mesh_picture(mesh, capture.cameras, i)
        straight = rgb / alpha.clamp_min(1e-6)[..., None] if with_alpha else rgb
        bytes_ = (straight.clamp(0, 1) * 255).round().to(torch.uint8)
        return Photo(bytes_, (alpha * 255).round().to(torch.uint8) if with_alpha else None)

    return replace(capture, load=load, has_alpha=with_alpha)


@pytest.mark.parametrize("with_alpha", [False, True])
def test_a_mesh_that_is_what_was_photographed_scores_best(with_alpha: bool):
    mesh = painted()
    score = held_out_score(mesh, tiny_scene(), photographed(mesh, with_alpha))
    assert score is not None
    # 8-bit photos.
    assert score.mesh_psnr > 50
    assert score.scene_psnr < 30
    assert score.n_photos == 1


def test_a_scene_scores_as_its_photos_and_masks_hide_what_differs():
    scene, capture = tiny_scene(), tiny_capture(tiny_scene())
    score = held_out_score(painted(), scene, capture)
    assert score is not None
    assert score.scene_psnr > 50
    assert score.mesh_psnr < 30
    _, covered = mesh_picture(painted(), capture.cameras, 0)
    beside = tiny_capture(scene, mask=torch.where(covered > 0, 0, 255).to(torch.uint8))
    masked = held_out_score(painted(), scene, beside)
    assert masked is not None
    assert masked.mesh_psnr > score.mesh_psnr


def test_what_lies_around_a_mesh_costs_nothing_where_the_mesh_is():
    capture = photographed(painted(), with_alpha=False)

    def load(i: int) -> Photo:
        rgb, covered = mesh_picture(painted(), capture.cameras, i)
        room = torch.where(covered[..., None] > 0, rgb, torch.tensor(0.7))
        return Photo((room.clamp(0, 1) * 255).round().to(torch.uint8), None)

    score = held_out_score(painted(), tiny_scene(), replace(capture, load=load))
    assert score is not None
    assert score.mesh_psnr < 20
    assert score.mesh_psnr_covered is not None
    assert score.mesh_psnr_covered > 50
    covered = mesh_picture(painted(), capture.cameras, capture.test[0])[1]
    assert score.covered == pytest.approx(float((covered == 1).float().mean()))


def test_a_mesh_that_no_photo_shows_has_no_score_where_it_is():
    away = replace(painted(), vertices=painted().vertices + 1000)
    score = held_out_score(away, tiny_scene(), tiny_capture(tiny_scene()))
    assert score is not None
    assert (score.covered, score.mesh_psnr_covered, score.scene_psnr_covered) == (0, None, None)


def test_nothing_held_out_gives_no_score():
    assert held_out_score(painted(), tiny_scene(), replace(tiny_capture(tiny_scene()), test=())) is None
