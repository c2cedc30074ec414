"""The gsplat adapter against a stand-in of gsplat 1.5.3: its names, defaults, checks of shapes and what it returns."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from comparison import assert_close_image
from strategies import random_gaussians, ring_of_cameras, with_gradients
from torch import Tensor

from scene3d.core.gaussians import Gaussians
from scene3d.ops import covariance, projection, sh
from scene3d.render import gsplat_adapter
from scene3d.render.rasterize import rasterize
from scene3d.render.types import RasterSettings, Render

MIN_ALPHA, MAX_ALPHA = 1 / 255, 0.999
VIEWS = ring_of_cameras(2, 31, 23)


def rasterization(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = True,
    tile_size: int = 16,
    backgrounds: Tensor | None = None,
    render_mode: str = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: str = "classic",
    channel_chunk: int = 32,
    distributed: bool = False,
    camera_model: str = "pinhole",
    segmented: bool = False,
    covars: Tensor | None = None,
    with_ut: bool = False,
    with_eval3d: bool = False,
    radial_coeffs: Tensor | None = None,
    tangential_coeffs: Tensor | None = None,
    thin_prism_coeffs: Tensor | None = None,
    ftheta_coeffs: object = None,
    rolling_shutter: object = None,
    viewmats_rs: Tensor | None = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Every Gaussian into every pixel, in torch."""
    n, n_views = len(means), len(viewmats)
    assert (means.shape, quats.shape, scales.shape, opacities.shape) == ((n, 3), (n, 4), (n, 3), (n,))
    assert (viewmats.shape, Ks.shape) == ((n_views, 4, 4), (n_views, 3, 3))
    assert render_mode in ("RGB", "RGB+ED")
    assert not packed
    if sh_degree is None:
        assert colors.shape[:-1] in ((n,), (n_views, n))
    else:
        assert colors.ndim == 3
        assert (colors.shape[0], colors.shape[2]) == (n, 3)
        assert (sh_degree + 1) ** 2 <= colors.shape[1]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([x, y], dim=-1).reshape(-1, 1, 2)
    images, alphas, centers, radii = [], [], [], []
    for c in range(n_views):
        found = projection.project(
            means, covariance.from_quats_scales(quats, scales), viewmats[c], Ks[c], (width, height), eps2d
        )
        values = colors if colors.shape[:-1] == (n,) else colors[c]
        if sh_degree is not None:
            dirs = torch.nn.functional.normalize(means - torch.linalg.inv(viewmats[c])[:3, 3], dim=1)
            values = sh.evaluate(colors[:, :1], colors[:, 1:], dirs, sh_degree)
        if render_mode == "RGB+ED":
            values = torch.cat([values, found.depths[:, None]], dim=1)
        dx, dy = (pixels - found.means2d).unbind(dim=2)
        a, b, d = found.conics.unbind(dim=1)
        factor = found.compensations if rasterize_mode == "antialiased" else 1.0
        raw = opacities * factor * torch.exp(-0.5 * (a * dx * dx + d * dy * dy) - b * dx * dy)
        is_seen = (raw >= MIN_ALPHA) & (found.depths > near_plane) & (found.depths < far_plane)
        alpha = torch.where(is_seen, raw.clamp_max(MAX_ALPHA), 0.0)[:, found.depths.argsort()]
        before = torch.cat([torch.ones(len(alpha), 1), (1 - alpha).cumprod(dim=1)[:, :-1]], dim=1)
        weights = alpha * before
        total = weights.sum(dim=1, keepdim=True)
        image = weights @ values[found.depths.argsort()]
        if render_mode == "RGB+ED":
            image = torch.cat([image[:, :-1], image[:, -1:] / total.clamp(min=1e-10)], dim=1)
        images.append(image.reshape(height, width, -1))
        alphas.append(total.reshape(height, width, 1))
        centers.append(found.means2d)
        radii.append(torch.stack([torch.full((n,), 7), torch.full((n,), 5)], dim=1) * is_seen.any(dim=0)[:, None])
    means2d = torch.stack(centers)
    rendered = torch.stack(images)
    # So that means2d has a gradient that the test knows: 3 and 4 pixels for each unit of the first value.
    if means2d.requires_grad:
        shift = (means2d * torch.tensor([3.0, 4.0])).sum()
        rendered = rendered + (shift - shift.detach())
    if absgrad:
        means2d.register_hook(lambda v: setattr(means2d, "absgrad", torch.full_like(means2d, 2.0)))
    return rendered, torch.stack(alphas), {"radii": torch.stack(radii).int(), "means2d": means2d}


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("gsplat")
    module.rasterization = rasterization  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gsplat", module)
    monkeypatch.setattr(gsplat_adapter, "DEVICE_TYPE", "cpu")


def scene_of(n: int = 25) -> Gaussians:
    return random_gaussians(n, seed=4).to(dtype=torch.float32)


def render(scene: Gaussians, settings: RasterSettings) -> Render:
    return gsplat_adapter.rasterize_arrays(scene, VIEWS.to(dtype=torch.float32), settings)


@pytest.mark.parametrize(
    "settings",
    [
        RasterSettings(background=(0.2, 0.9, 0.4)),
        RasterSettings(with_depth=True, with_normals=True, sh_degree=1),
        RasterSettings(antialiased=True, eps2d=0.1),
    ],
    ids=["colour", "depth and normals", "antialiased"],
)
def test_images_are_those_of_the_reference(settings: RasterSettings) -> None:
    scene = scene_of()
    found = render(scene, settings)
    expected = rasterize(scene, VIEWS.to(dtype=torch.float32), settings, "reference")
    for name in ("rgb", "alpha", "depth", "normals"):
        image, wanted = getattr(found, name), getattr(expected, name)
        assert (image is None) == (wanted is None)
        if image is not None:
            assert_close_image(image.double(), wanted.double())
    assert found.median_depth is None


def test_gradients_reach_the_parameters_as_they_are_stored() -> None:
    settings = RasterSettings(background=(0.1, 0.2, 0.3))
    grads = []
    for backend in (gsplat_adapter.rasterize_arrays, lambda *a: rasterize(*a, "reference")):
        leaves = with_gradients(scene_of())
        backend(leaves, VIEWS.to(dtype=torch.float32), settings).alpha.sum().backward()
        grads.append({name: value.grad for name, value in leaves.params().items()})
    for name in ("means", "quats", "log_scales", "opacity_logits"):
        assert torch.nn.functional.cosine_similarity(grads[0][name].flatten(), grads[1][name].flatten(), dim=0) > 0.999


@pytest.mark.parametrize(("absgrad", "length"), [(False, 5.0), (True, 8**0.5)])
def test_statistics_are_radii_and_screen_gradients(absgrad: bool, length: float) -> None:
    scene = scene_of()
    broken = {name: value.clone() for name, value in scene.params().items()}
    broken["means"][3, 0] = torch.nan
    leaves = with_gradients(Gaussians(**broken))
    found = render(leaves, RasterSettings(absgrad=absgrad))
    found.rgb[0, 0, 0, 0].backward()
    sound = torch.arange(len(scene)) != 3
    assert found.stats.n_culled_nonfinite == 1
    assert set(found.stats.radii[:, sound].unique().tolist()) <= {0.0, 7.0}
    assert found.stats.radii.max() == 7
    torch.testing.assert_close(found.stats.grad2d[:, sound], torch.full((2, 24), length), rtol=1e-3, atol=0)
    assert not found.stats.grad2d[:, 3].any()
    assert not leaves.means.grad[3].any()


def test_without_sound_gaussians_the_background_is_left() -> None:
    scene = scene_of(2).map(lambda value: torch.full_like(value, torch.nan))
    found = render(scene, RasterSettings(background=(0.2, 0.4, 0.6)))
    assert found.rgb[0, 5, 5].tolist() == pytest.approx([0.2, 0.4, 0.6])


def test_tensors_elsewhere_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsplat_adapter, "DEVICE_TYPE", "cuda")
    with pytest.raises(TypeError, match="backend 'gsplat': expected float32 on a CUDA device"):
        render(scene_of(), RasterSettings())
