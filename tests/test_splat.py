"""The .splat format: 32 bytes a Gaussian, lossy by its nature."""

import pytest
import torch

from scene3d.core.errors import FormatError
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.registry import read_scene, write_scene
from scene3d.io.splat import read_splat

BYTE_STEP = 1 / 255
# Normalised components are stored in steps of 1/128.
QUAT_STEP = 1 / 128


def visible_gaussians(n=50, sh_degree=0):
    generator = torch.Generator().manual_seed(1)
    quats = torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=1)
    return Gaussians(
        means=torch.randn(n, 3, generator=generator),
        quats=quats,
        log_scales=torch.randn(n, 3, generator=generator) - 3,
        opacity_logits=torch.randn(n, generator=generator),
        sh0=torch.rand(n, 1, 3, generator=generator) - 0.5,
        shN=torch.zeros(n, (sh_degree + 1) ** 2 - 1, 3),
    )


def test_a_round_trip_loses_only_what_bytes_cannot_hold(tmp_path):
    gaussians = visible_gaussians()
    write_scene(Scene(gaussians), tmp_path / "a.splat")
    back = read_scene(tmp_path / "a.splat").payload
    order = torch.argsort(gaussians.scales.prod(dim=1) * gaussians.opacities, descending=True)
    truth = gaussians.select(order)
    assert torch.equal(back.means, truth.means)
    torch.testing.assert_close(back.log_scales, truth.log_scales, atol=1e-5, rtol=0)
    torch.testing.assert_close(back.opacities, truth.opacities, atol=BYTE_STEP, rtol=0)
    torch.testing.assert_close(back.sh0, truth.sh0, atol=4 * BYTE_STEP, rtol=0)
    torch.testing.assert_close(back.quats, truth.quats, atol=QUAT_STEP, rtol=0)


def test_the_size_is_32_bytes_each(tmp_path):
    write_scene(Scene(visible_gaussians(7)), tmp_path / "a.splat")
    assert (tmp_path / "a.splat").stat().st_size == 7 * 32


def test_what_is_lost_is_told(tmp_path, caplog):
    write_scene(Scene(visible_gaussians(3, sh_degree=1), SceneInfo(antialiased=True)), tmp_path / "a.splat")
    assert "cannot hold spherical harmonics" in caplog.text
    assert "antialiased" in caplog.text


def test_nothing_is_told_when_nothing_is_lost(tmp_path, caplog):
    write_scene(Scene(visible_gaussians(3)), tmp_path / "a.splat")
    assert caplog.text == ""


def test_opaque_and_empty_opacities_stay_finite(tmp_path):
    gaussians = visible_gaussians(2)
    gaussians.opacity_logits[:] = torch.tensor([40.0, -40.0])
    write_scene(Scene(gaussians), tmp_path / "a.splat")
    back = read_splat(tmp_path / "a.splat").payload
    assert back.is_finite().all()
    assert sorted(back.opacities.tolist()) == pytest.approx([0, 1], abs=BYTE_STEP)


def test_truncation_within_a_row_is_a_format_error(tmp_path):
    write_scene(Scene(visible_gaussians(2)), tmp_path / "a.splat")
    whole = (tmp_path / "a.splat").read_bytes()
    for size in range(65):
        (tmp_path / "b.splat").write_bytes(whole[:size])
        if size % 32 == 0:
            assert len(read_splat(tmp_path / "b.splat").payload) == size // 32
        else:
            with pytest.raises(FormatError, match="expected a multiple of 32 bytes"):
                read_splat(tmp_path / "b.splat")


def test_any_bytes_give_finite_gaussians(tmp_path):
    generator = torch.Generator().manual_seed(2)
    data = torch.randint(0, 256, (32 * 200,), generator=generator, dtype=torch.uint8).numpy().tobytes()
    (tmp_path / "a.splat").write_bytes(data)
    assert read_splat(tmp_path / "a.splat").payload.is_finite().all()
