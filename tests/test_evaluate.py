"""Evaluation: numbers of known images, protocol, pictures and files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_capture import HEIGHT, WIDTH, tiny_capture, tiny_scene, write_tiny_capture

from scene3d.core.errors import CaptureError
from scene3d.core.scene import Scene
from scene3d.io.ply import write_ply
from scene3d.ops.color_fit import fit_colors
from scene3d.ops.colormap import DEPTH, HEAT, colorize, css_stops
from scene3d.report.evaluate import MAX_PSNR, Comparison, EvaluateSettings, ViewScore, evaluate
from scene3d.report.evaluation_files import PictureWriter, fitted_background, last_step
from scene3d.report.perceptual import load_perceptual
from scene3d.report.pictures import draw_pictures
from scene3d.stages import evaluate as stage

SETTINGS = EvaluateSettings(backend="reference", lpips="none")


@pytest.fixture(scope="module")
def scene() -> Scene:
    return tiny_scene()


def test_scene_measured_against_its_own_rounded_renders_is_equal(scene: Scene) -> None:
    result = evaluate(scene, tiny_capture(scene), [0, 1], replace(SETTINGS, precision="8bit"))
    assert result.mean.psnr == MAX_PSNR
    assert result.mean.ssim == pytest.approx(1, abs=1e-5)
    assert result.mean.flip == pytest.approx(0, abs=1e-5)


def test_float_renders_differ_from_photos_by_rounding_only(scene: Scene) -> None:
    psnr = evaluate(scene, tiny_capture(scene), [0], SETTINGS).mean.psnr
    # Rounding errors spread evenly over one step of 1/255 have a mean square of 1/12 step: 58.9 dB, more in the black.
    assert 58 < psnr < 75


def test_constant_offset_gives_its_closed_form_psnr(scene: Scene) -> None:
    black = Scene(scene.payload.select(torch.zeros(len(scene.payload), dtype=torch.bool)))
    capture = tiny_capture(scene)
    grey = torch.full((HEIGHT, WIDTH, 3), 51, dtype=torch.uint8)
    capture = replace(capture, load=lambda i: replace(tiny_capture(scene).load(0), rgb=grey))
    result = evaluate(black, capture, [0], SETTINGS)
    assert result.mean.psnr == pytest.approx(13.979, abs=1e-3)
    assert result.n_gaussians == 0


def test_masked_pixels_do_not_count(scene: Scene) -> None:
    mask = torch.full((HEIGHT, WIDTH), 255, dtype=torch.uint8)
    mask[:, : WIDTH // 2] = 0
    capture = tiny_capture(scene, mask=mask)
    spoilt = capture.load(0).rgb.clone()
    spoilt[:, : WIDTH // 2] = 255
    capture = replace(capture, load=lambda i: replace(tiny_capture(scene, mask=mask).load(i), rgb=spoilt))
    found: list[Comparison] = []
    result = evaluate(scene, capture, [0], SETTINGS, found.append)
    assert result.mean.psnr > 58
    assert float(found[0].error[:, : WIDTH // 2].max()) == 0
    assert "masked pixels left out" in result.protocol


def test_views_without_any_kept_pixel_are_named_or_refused(scene: Scene) -> None:
    empty = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    capture = tiny_capture(scene)
    one_empty = replace(capture, load=lambda i: replace(capture.load(i), mask=empty if i == 1 else None))
    assert evaluate(scene, one_empty, [0, 1], SETTINGS).skipped == ("images/01.png",)
    with pytest.raises(CaptureError, match="the masks of all 1 views are empty"):
        evaluate(scene, one_empty, [1], SETTINGS)


def test_photos_with_alpha_are_put_on_white(scene: Scene) -> None:
    clear = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    nothing = Scene(scene.payload.select(torch.zeros(len(scene.payload), dtype=torch.bool)))
    result = evaluate(nothing, tiny_capture(scene, alpha=clear), [0], SETTINGS)
    assert result.mean.psnr == MAX_PSNR
    assert "white background" in result.protocol


def test_affine_exposure_forgives_a_brighter_photo(scene: Scene) -> None:
    capture = tiny_capture(scene)
    brighter = replace(
        capture, load=lambda i: replace(capture.load(i), rgb=(capture.load(i).rgb * 0.7 + 20).to(torch.uint8))
    )
    as_rendered = evaluate(scene, brighter, [0], SETTINGS)
    corrected = evaluate(scene, brighter, [0], replace(SETTINGS, exposure="affine"))
    assert corrected.mean.psnr > as_rendered.mean.psnr + 10
    assert "after an affine colour fit" in corrected.protocol


def test_color_fit_recovers_an_affine_transform() -> None:
    image = torch.rand(9, 8, 3, generator=torch.Generator().manual_seed(0))
    target = image @ torch.tensor([[0.8, 0.1, 0.0], [0.0, 0.7, 0.1], [0.1, 0.0, 0.9]]) + 0.05
    assert torch.allclose(fit_colors(image, target), target, atol=1e-4)


def test_protocol_says_split_rounding_and_background(scene: Scene) -> None:
    result = evaluate(scene, tiny_capture(scene), (0,), replace(SETTINGS, precision="8bit", background="white"))
    for words in ("made for tests", "1 test views", "rounded to 8 bits", "white background", "colours as rendered"):
        assert words in result.protocol


def test_nothing_to_measure_is_an_error_with_a_remedy(scene: Scene) -> None:
    with pytest.raises(CaptureError, match=r"tiny: no views to measure\. Hold photos out"):
        evaluate(scene, tiny_capture(scene), [], SETTINGS)


def test_view_out_of_range_is_named(scene: Scene) -> None:
    with pytest.raises(ValueError, match="views: expected 0 to 3, got 9"):
        evaluate(scene, tiny_capture(scene), [9], SETTINGS)


def test_lpips_without_weights_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    found = load_perceptual("alex")
    assert found.measure is None
    assert found.note == "not available: weights alexnet-owt-*.pth are not in torch's hub folder"


@pytest.mark.parametrize("ramp", [HEAT, DEPTH])
def test_colours_grow_lighter_with_the_value(ramp) -> None:
    rgb = colorize(torch.linspace(0, 1, 64), ramp).double() / 255
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    luminance = linear @ torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64)
    # Steps of 8-bit colour are coarse at the dark end, and chroma shifts luminance against lightness a little.
    assert float(luminance.diff().min()) > -2e-3
    assert float(luminance[-1] - luminance[0]) > 0.8


def test_nan_and_values_outside_have_the_end_colours() -> None:
    assert torch.equal(colorize(torch.tensor([float("nan"), -1.0])), colorize(torch.tensor([0.0, 0.0])))
    assert css_stops(2)[1] == "#" + "".join(f"{c:02x}" for c in colorize(torch.tensor(7.0)).tolist())


def test_pictures_show_three_panels_with_labels() -> None:
    score = ViewScore(0, "a very long folder name/" * 5 + "x.png", WIDTH, HEIGHT, 30.0, 0.9, 0.1, None, 0.1)
    blank = torch.zeros(HEIGHT, WIDTH, 3)
    pictures = draw_pictures(Comparison(score, blank, blank + 1, torch.ones(HEIGHT, WIDTH)))
    sheet = pictures.side_by_side
    assert sheet.width > 3 * 260
    middle = sheet.height // 2
    assert [sheet.getpixel((round(sheet.width * x), middle)) for x in (0.2, 0.5)] == [(0, 0, 0), (255, 255, 255)]
    assert pictures.error.getpixel((0, 0)) == tuple(colorize(torch.tensor(1.0)).tolist())


def test_views_of_equal_stem_get_files_of_their_own(tmp_path: Path) -> None:
    writer = PictureWriter(tmp_path)
    blank = torch.zeros(8, 8, 3)
    for index, name in enumerate(("a/b.png", "a_b.png")):
        score = ViewScore(index, name, 8, 8, 1.0, 1.0, 0.0, None, 0.1)
        writer.write(Comparison(score, blank, blank, blank[..., 0]))
    assert len({files["side_by_side"] for files in writer.names.values()}) == 2


def test_last_step_survives_a_torn_log(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 50}\n{"step": 100}\n{"st')
    assert last_step(tmp_path / "log.jsonl") == 100
    assert last_step(tmp_path / "none.jsonl") == 0


def test_stage_writes_metrics_stats_and_pictures(tmp_path: Path, scene: Scene, capsys) -> None:
    capture = write_tiny_capture(tmp_path / "capture", scene)
    path = tmp_path / "run" / "fit" / "scene.ply"
    path.parent.mkdir(parents=True)
    write_ply(scene, path)
    (path.parent / "log.jsonl").write_text('{"step": 70}\n')
    stage.run(stage.Config(path, capture, test_every=2, backend="reference", lpips="none"))
    folder = tmp_path / "run" / "eval"
    metrics = json.loads((folder / "metrics.json").read_text())
    stats = json.loads((folder / "stats" / "val_step00070.json").read_text())
    assert metrics["psnr"] > 55
    assert stats["psnr"] == metrics["psnr"]
    assert stats["num_GS"] == len(scene.payload)
    assert len(metrics["views"]) == 2
    for view in metrics["views"]:
        for name in view["pictures"].values():
            with Image.open(folder / name) as image:
                assert image.width > 0
    assert capsys.readouterr().out.startswith(f"PSNR {metrics['psnr']:.2f} dB")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"settings": {"background": "black"}}', "black"),
        ('{"settings": {"background": "random"}}', "white"),
        ('{"settings": {"background": "auto"}}', "auto"),
        ('{"settings": {"background": ["black"]}}', "auto"),
        ('{"settings": 3}', "auto"),
        ("{", "auto"),
    ],
)
def test_the_background_is_that_of_the_fit(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert fitted_background(tmp_path / "config.json") == expected
    assert fitted_background(tmp_path / "none.json") == "auto"
