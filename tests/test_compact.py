"""The method "compact": masks, the colour field, and files that give what was judged."""

from pathlib import Path

import pytest
import torch
from small_scenes import blob, views_around

from scene3d.compress import compact
from scene3d.compress.distill import Teacher
from scene3d.compress.goal import Goal
from scene3d.compress.judge import Judge
from scene3d.compress.mask import binary_mask, learn_mask, masked
from scene3d.core.gaussians import Gaussians, cat
from scene3d.core.scene import Scene
from scene3d.io.registry import read_scene
from scene3d.io.s3d_container import write_container
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "FIELD_STEPS", 60)


def test_masks_are_binary_with_the_gradient_of_the_sigmoid() -> None:
    logits = torch.tensor([-9.0, -4.0, 0.0, 3.0], requires_grad=True)
    mask = binary_mask(logits)
    assert mask.detach().round(decimals=6).tolist() == [0, 1, 1, 1]
    mask.sum().backward()
    soft = logits.detach().sigmoid()
    torch.testing.assert_close(logits.grad, soft * (1 - soft))


def test_masked_gaussians_are_not_seen_and_others_stay() -> None:
    scene, views = blob(30), views_around(2)
    mask = (torch.arange(30) % 3 > 0).float()
    seen = rasterize(masked(scene, mask), views).rgb
    torch.testing.assert_close(seen, rasterize(scene.select(mask > 0), views).rgb, atol=1e-5, rtol=1e-4)


def test_masks_hide_what_no_view_needs() -> None:
    scene, views = blob(40), views_around(3)
    hidden = Gaussians(**{**scene.params(), "means": scene.means + torch.tensor([0.0, 0, 500.0])})
    both = cat([scene, hidden])
    left = learn_mask(both, Teacher(both, views, RasterSettings()), n_steps=80, strength=1e-6)
    assert len(left) < 80
    n_hidden = int((left.means[:, 2] > 100).sum())
    assert n_hidden < 10
    assert len(left) - n_hidden > 20


def test_a_field_learns_colours_that_vary_smoothly() -> None:
    scene = blob(300, 0)
    field = compact.fit_field(scene, torch.ones(300))
    error = float((field(scene.means) - scene.sh0[:, 0]).square().mean())
    assert error < 0.4 * float(scene.sh0.var())


def test_the_file_gives_what_was_judged(tmp_path: Path) -> None:
    scene, views = Scene(blob(200)), views_around(4)
    judge = Judge(scene, views)
    packed = compact.compress(scene, Goal(scene_psnr=10.0, tune_steps=5), judge, views)
    write_container(packed.container, tmp_path / "a.s3d")
    assert "field.tables" in packed.container.chunks
    assert judge.verdict(read_scene(tmp_path / "a.s3d").splats()) == packed.verdict
    assert packed.verdict.fidelity_db > 15


def test_codes_add_what_the_field_misses(tmp_path: Path) -> None:
    scene, views = Scene(blob(200)), views_around(4)
    judge = Judge(scene, views)
    coarse, fine = (compact.compress(scene, Goal(scene_psnr=psnr), judge, views) for psnr in (8.0, 28.0))
    assert coarse.is_met
    assert fine.verdict.fidelity_db > coarse.verdict.fidelity_db + 6
    assert any(name.startswith("sh0") for name in fine.container.chunks)
    assert fine.size_bytes > coarse.size_bytes
    write_container(fine.container, tmp_path / "a.s3d")
    assert judge.verdict(read_scene(tmp_path / "a.s3d").splats()) == fine.verdict


@pytest.mark.parametrize("n", [0, 1, 2])
def test_scenes_of_hardly_anything_are_compressed(n: int) -> None:
    scene, views = Scene(blob(n)), views_around(2)
    assert len(compact.compress(scene, Goal(), Judge(scene, views), views).gaussians) <= n
