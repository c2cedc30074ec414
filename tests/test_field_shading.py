"""Decoders that make a colour of each sample: native code against torch, gradients, images, files and fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from field_scenes import random_field, random_rays
from tiny_capture import tiny_cameras, tiny_capture, tiny_scene

from scene3d.core.errors import BackendUnavailable, FormatError
from scene3d.core.fields import Field
from scene3d.core.scene import Scene
from scene3d.io.registry import read_scene, write_scene
from scene3d.recon.field_fit import FieldHooks, field_device, fit_field
from scene3d.recon.field_settings import FieldFitSettings, field_preset
from scene3d.render import field_cpu, field_reference
from scene3d.render.field_bricks import takes
from scene3d.render.field_march import SMOOTH, MarchSettings, shade
from scene3d.render.scene_view import render_scene
from scene3d.render.types import RasterSettings

if not field_cpu.is_available():
    pytest.skip("the native module is not built", allow_module_level=True)

KINDS = ("vm", "cp", "trivec", "cover", "rbf")


def sampled(kind: str, **others) -> Field:
    return replace(random_field(kind, **others), shading="sample")


def colors_of(module, field: Field, settings: MarchSettings = MarchSettings(), n: int = 60):  # noqa: B008 - frozen
    origins, directions, jitter = random_rays(n)
    sums = module.march(field, origins, directions, jitter, settings)
    return shade(lambda *rows: module.decode(field.decoder, *rows), sums, directions), sums


@pytest.mark.parametrize("kind", KINDS)
def test_native_colors_and_gradients_are_those_of_torch(kind: str):
    field = sampled(kind, has_occupancy=True)
    found = []
    for module in (field_reference, field_cpu):
        leaf = field.map(lambda value: value.detach().clone().requires_grad_())
        colors, sums = colors_of(module, leaf)
        (colors.sin().sum() + (sums.opacity**2).sum() + sums.distance.sin().sum()).backward()
        found.append([colors.detach(), *(v.grad for v in (*leaf.factors(), *leaf.decoder.tensors()))])
    for want, got in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-10)


def test_gradients_pass_gradcheck():
    field = sampled("vm", nodes=(3, 4, 2), ranks=(16, 16), step=0.45)

    def colors(*factors):
        return colors_of(field_cpu, field.with_factors(factors), SMOOTH, 3)[0]

    assert torch.autograd.gradcheck(colors, [v.requires_grad_() for v in field.factors()], fast_mode=True)


def test_both_shadings_agree_where_a_ray_meets_one_sample():
    field = replace(random_field(), density_scale=1e5, density_shift=5.0)
    deferred, sums = colors_of(field_cpu, field)
    each, rows = colors_of(field_cpu, replace(field, shading="sample"))
    assert rows.rows is not None
    assert sums.opacity.max() > 0.999
    torch.testing.assert_close(each, deferred, rtol=0, atol=1e-6)
    foggy = random_field()
    assert (
        colors_of(field_cpu, foggy)[0] - colors_of(field_cpu, replace(foggy, shading="sample"))[0]
    ).abs().max() > 1e-3


def test_threads_do_not_change_a_bit():
    field = sampled("vm", has_occupancy=True).to(dtype=torch.float32)
    origins, directions, jitter = (v.float() for v in random_rays(700))
    results, before = [], field_cpu._cpu.n_threads()
    for n_threads in (1, 3):
        field_cpu._cpu.set_threads(n_threads)
        native, decoder = field_cpu.NativeField(field), field_cpu.NativeDecoder(field.decoder)
        tape, grads = native.new_tape(), [torch.zeros_like(v) for v in field.factors()]
        sums = native.march(origins, directions, jitter, tape)
        v, v_decoder = field_cpu.shade_backward(decoder, sums, directions, shade(decoder.decode, sums, directions))
        native.march_backward(tape, v, grads, field_cpu.empty_marks(grads))
        results.append([*grads, *v_decoder])
    field_cpu._cpu.set_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert results[0][7].abs().max() > 0


@pytest.mark.parametrize("warp", [None, "cube"])
def test_images_are_those_of_the_oracle(warp: str | None):
    scene = Scene(sampled("vm", has_occupancy=warp is None, warp=warp).to(dtype=torch.float32))
    camera, settings = tiny_cameras().select([1]), RasterSettings(background=(1.0, 0.5, 0.0), with_depth=True)
    native, oracle = (render_scene(scene, camera, settings, name) for name in ("cpu", "reference"))
    assert ((native.rgb - oracle.rgb).abs() < 1e-4).float().mean() > 0.98
    assert native.alpha.max() > 0.3
    assert not takes(scene.field())


def test_a_file_says_how_it_is_shaded(tmp_path: Path):
    path = tmp_path / "a.s3d"
    write_scene(Scene(sampled("vm").to(dtype=torch.float32)), path)
    assert read_scene(path).field().shading == "sample"
    path.write_bytes(path.read_bytes().replace(b'"shading":"sample"', b'"shading":"simple"'))
    with pytest.raises(FormatError):
        read_scene(path)


def test_a_fit_learns_resumes_exactly_and_leaves_the_gpu_alone(tmp_path: Path):
    capture = tiny_capture(tiny_scene())
    preset = replace(
        field_preset("fast", "vm", 40), batch_rays=256, color_rank=16, last_voxels=20**3, first_voxels=12**3
    )
    settings = replace(preset, decoder="sample", mask_after=5)
    whole = fit_field(capture, settings)
    assert whole.field.shading == "sample"
    assert whole.validation is not None
    steps = iter(range(1000))
    hooks = FieldHooks(should_stop=lambda: next(steps) == 17, checkpoint=tmp_path / "checkpoint.pt")
    assert not fit_field(capture, settings, hooks).is_finished
    again = fit_field(capture, settings, FieldHooks(checkpoint=tmp_path / "checkpoint.pt"))
    parts = zip(
        (*whole.field.factors(), *whole.field.decoder.tensors()),
        (*again.field.factors(), *again.field.decoder.tensors()),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in parts)
    with pytest.raises(BackendUnavailable):
        field_device(FieldFitSettings(backend="cuda", decoder="sample"))
