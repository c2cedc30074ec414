import pytest
import torch
from torch import Tensor

from scene3d.ops import image
from scene3d.render import loss
from scene3d.render.loss import l1_ssim, l1_ssim_parts

pytest.importorskip("scene3d._cpu", reason="the native module is not built")

# One pixel, less than a window, one lane and a little, several tiles in both directions with ragged ends.
SIZES = [(1, 1), (5, 7), (1, 90), (90, 1), (61, 83), (64, 80), (125, 530)]
VALUE_ERROR = 2e-6  # Of float32 blurs of values near 1.
# Of gradients, relative to the largest: variances are differences of squares, 1e-7 against C2 = 9e-4.
GRADIENT_ERROR = 2e-4


def oracle(rgb: Tensor, target: Tensor, weight: Tensor | None, ssim_lambda: float) -> Tensor:
    mean_l1 = image.masked_mean((rgb - target).abs().mean(dim=2), weight)
    return (1 - ssim_lambda) * mean_l1 + ssim_lambda * (1 - image.ssim(rgb, target, weight))


def photo(height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(height, width, 3, generator=generator, dtype=torch.float64)


def loss_and_gradient(function, rgb: Tensor, *args) -> tuple[Tensor, Tensor]:
    rgb = rgb.detach().requires_grad_()
    value = function(rgb, *args)
    value.backward()
    assert rgb.grad is not None
    return value.detach(), rgb.grad


def assert_like_oracle(rgb: Tensor, target: Tensor, weight: Tensor | None, ssim_lambda: float) -> None:
    expected, v_expected = loss_and_gradient(oracle, rgb, target, weight, ssim_lambda)
    weight32 = None if weight is None else weight.float()
    value, v_rgb = loss_and_gradient(l1_ssim, rgb.float(), target.float(), weight32, ssim_lambda)
    assert abs(value.item() - expected.item()) < VALUE_ERROR
    assert (v_rgb - v_expected).abs().max() < GRADIENT_ERROR * v_expected.abs().max()
    cosine = torch.nn.functional.cosine_similarity(v_rgb.double().flatten(), v_expected.flatten(), dim=0)
    assert cosine > 1 - 1e-7


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ssim_lambda", [0.0, 0.2, 1.0])
def test_loss_and_gradient_equal_float64_oracle(size, ssim_lambda):
    assert_like_oracle(photo(*size, seed=0), photo(*size, seed=1), None, ssim_lambda)


@pytest.mark.parametrize("size", SIZES)
def test_weighted_loss_and_gradient_equal_float64_oracle(size):
    weight = photo(*size, seed=2)[..., 0]
    weight[weight < 0.3] = 0
    weight[0, 0] = 0.5
    assert_like_oracle(photo(*size, seed=0), photo(*size, seed=1), weight, 0.2)


def test_smooth_images_equal_float64_oracle():
    y, x = torch.meshgrid(torch.linspace(0, 1, 70).double(), torch.linspace(0, 1, 100).double(), indexing="ij")
    rgb = torch.stack([x, y, x * y], dim=2)
    assert_like_oracle(rgb, rgb * 0.9 + 0.05, None, 0.2)


def test_parts_are_means_over_pixels_and_channels():
    rgb, target = photo(40, 50, seed=3), photo(40, 50, seed=4)
    parts = l1_ssim_parts(rgb.float(), target.float(), None, 0.3)
    assert parts.l1 == pytest.approx((rgb - target).abs().mean().item(), abs=VALUE_ERROR)
    assert parts.ssim == pytest.approx(image.ssim(rgb, target).item(), abs=VALUE_ERROR)
    assert parts.loss.item() == pytest.approx(0.7 * parts.l1 + 0.3 * (1 - parts.ssim), abs=VALUE_ERROR)


def test_bytes_are_255ths():
    rgb = photo(61, 83, seed=5).float()
    bytes_ = (photo(61, 83, seed=6) * 255).round().to(torch.uint8)
    value, v_rgb = loss_and_gradient(l1_ssim, rgb, bytes_)
    expected, v_expected = loss_and_gradient(l1_ssim, rgb, bytes_.float() / 255)
    assert abs(value - expected) < VALUE_ERROR
    assert (v_rgb - v_expected).abs().max() < GRADIENT_ERROR * v_expected.abs().max()


def test_equal_images_have_loss_zero_and_no_gradient():
    rgb = photo(30, 40, seed=7).float()
    value, v_rgb = loss_and_gradient(l1_ssim, rgb, rgb.clone())
    assert abs(value) < VALUE_ERROR
    assert v_rgb.abs().max() < 1e-6 / rgb.numel() * 100


def test_weight_one_is_no_weight():
    rgb, target = photo(61, 83, seed=8).float(), photo(61, 83, seed=9).float()
    value, v_rgb = loss_and_gradient(l1_ssim, rgb, target, torch.ones(61, 83))
    expected, v_expected = loss_and_gradient(l1_ssim, rgb, target)
    assert torch.equal(value, expected)
    assert torch.equal(v_rgb, v_expected)


def test_scale_of_weights_does_not_matter():
    rgb, target = photo(30, 40, seed=8).float(), photo(30, 40, seed=9).float()
    weight = photo(30, 40, seed=10)[..., 0].float()
    value, v_rgb = loss_and_gradient(l1_ssim, rgb, target, weight)
    scaled, v_scaled = loss_and_gradient(l1_ssim, rgb, target, weight * 4)
    assert torch.equal(value, scaled)
    assert torch.equal(v_rgb, v_scaled)


def test_weights_of_zero_give_zero():
    rgb, target = photo(30, 40, seed=8).float(), photo(30, 40, seed=9).float()
    value, v_rgb = loss_and_gradient(l1_ssim, rgb, target, torch.zeros(30, 40))
    assert value == 0
    assert v_rgb.abs().max() == 0


def test_pixels_farther_than_a_window_from_any_weight_get_no_gradient():
    rgb, target = photo(80, 100, seed=11).float(), photo(80, 100, seed=12).float()
    weight = torch.zeros(80, 100)
    weight[40, 50] = 1.0
    _, v_rgb = loss_and_gradient(l1_ssim, rgb, target, weight)
    touched = v_rgb.abs().amax(dim=2) > 0
    rows, columns = touched.nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (35, 45, 45, 55)


def test_bright_flat_images_stay_finite():
    rgb = torch.full((40, 40, 3), 300.0)
    value, v_rgb = loss_and_gradient(l1_ssim, rgb, rgb + torch.rand(40, 40, 3) * 1e-3)
    assert value.isfinite()
    assert v_rgb.isfinite().all()


def test_upstream_gradient_scales():
    rgb, target = photo(30, 40, seed=13).float(), photo(30, 40, seed=14).float()
    _, v_rgb = loss_and_gradient(l1_ssim, rgb, target)
    _, v_scaled = loss_and_gradient(lambda *args: l1_ssim(*args) * 3, rgb, target)
    torch.testing.assert_close(v_scaled, 3 * v_rgb)


def test_rows_need_not_be_contiguous():
    rgb, target = photo(30, 40, seed=15).float(), photo(30, 40, seed=16).float()
    expected, v_expected = loss_and_gradient(l1_ssim, rgb, target)
    value, v_rgb = loss_and_gradient(
        lambda x, y: l1_ssim(x.permute(1, 2, 0), y.permute(1, 2, 0)),
        rgb.permute(2, 0, 1).contiguous(),
        target.permute(2, 0, 1).contiguous(),
    )
    assert torch.equal(value, expected)
    assert torch.equal(v_rgb, v_expected.permute(2, 0, 1))


@pytest.mark.parametrize("weighted", [False, True])
def test_torch_path_equals_native_path(monkeypatch, weighted):
    rgb, target = photo(30, 40, seed=17).float(), photo(30, 40, seed=18).float()
    weight = photo(30, 40, seed=19)[..., 0].float() if weighted else None
    native = l1_ssim_parts(rgb, target, weight)
    _, v_native = loss_and_gradient(l1_ssim, rgb, target, weight)
    monkeypatch.setattr(loss, "_cpu", None)
    slow = l1_ssim_parts(rgb, target, weight)
    _, v_slow = loss_and_gradient(l1_ssim, rgb, target, weight)
    assert (slow.l1, slow.ssim) == pytest.approx((native.l1, native.ssim), abs=VALUE_ERROR)
    assert slow.loss.item() == pytest.approx(native.loss.item(), abs=VALUE_ERROR)
    assert (v_native - v_slow).abs().max() < GRADIENT_ERROR * v_slow.abs().max()


def test_float64_passes_gradcheck():
    rgb, target = photo(4, 5, seed=20), photo(4, 5, seed=21)
    assert torch.autograd.gradcheck(lambda x: l1_ssim(x, target, None, 0.4), rgb.requires_grad_())


def test_empty_image_has_loss_zero():
    assert l1_ssim(torch.zeros(0, 5, 3), torch.zeros(0, 5, 3)) == 0


def test_error_names_size_that_differs():
    with pytest.raises(ValueError, match=r"target: expected shape \[H, W, 3\], got \[5, 4, 3\] where H=4, W=4"):
        l1_ssim(torch.zeros(4, 4, 3), torch.zeros(5, 4, 3))
    with pytest.raises(ValueError, match=r"weight: expected shape \[H, W\], got \[4, 5\]"):
        l1_ssim(torch.zeros(4, 4, 3), torch.zeros(4, 4, 3), torch.ones(4, 5))
