"""Radial bases: lists that miss none, shapes like their clusters, files that come back, fits that learn and resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from field_scenes import random_field
from test_field_fit import SETTINGS, ball_capture, same

from scene3d.core.bases import MAX_LISTED, RadialBases
from scene3d.core.errors import BackendUnavailable, FormatError
from scene3d.core.fields import Field
from scene3d.core.scene import Scene
from scene3d.io.field_codec import decode_field, encode_field
from scene3d.io.registry import read_scene, write_scene
from scene3d.ops.radial_bases import channels, clustered, even, listed, near, shapes_of, weighted_sum
from scene3d.recon.field_bases import with_bases
from scene3d.recon.field_fit import FieldHooks, fit_field
from scene3d.recon.field_rays import RayPool
from scene3d.recon.field_settings import field_preset
from scene3d.render import field_cpu
from scene3d.render.field import choose_backend

if not field_cpu.is_available():
    pytest.skip("the native module is not built", allow_module_level=True)

RBF_SETTINGS = replace(SETTINGS, kind="rbf", bases=300)


def some_bases(n: int, d: int, size: float = 0.1) -> RadialBases:
    generator = torch.Generator().manual_seed(3)
    spread = size * torch.randn(n, d, d, generator=generator)
    reach = spread @ spread.mT + (0.3 * size) ** 2 * torch.eye(d)
    return listed(torch.rand(n, d, generator=generator), shapes_of(reach), (1.0, 8.0))


@pytest.mark.parametrize("d", [2, 3])
def test_no_basis_that_reaches_a_point_is_missed(d: int):
    bases, points = some_bases(80, d), torch.rand(500, d, generator=torch.Generator().manual_seed(4))
    upper = torch.zeros(80, d, d)
    rows, columns = torch.triu_indices(d, d)
    upper[:, rows, columns] = bases.shapes
    q = (upper @ (points[:, None] - bases.centers)[..., None]).square().sum(dim=(2, 3))
    want = torch.where(q < 1, (1 - q) ** 2 / (1 + 4 * q), 0.0)
    point, item, phi = near(bases, points)
    got = torch.zeros(500, 80)
    got[point, item] = phi
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
    assert (want > 0).sum() > 200


def test_a_basis_is_one_at_its_centre_and_nothing_at_its_edge():
    bases = listed(torch.full((1, 3), 0.5), shapes_of(torch.diag(torch.tensor([0.01, 0.04, 0.09]))[None]), (0.0, 0.0))
    offsets = torch.tensor([[0.0, 0, 0], [0.0999, 0, 0], [0, 0.2001, 0], [0, 0.1, 0]])
    values = weighted_sum(bases, torch.ones(1, 1), 0.5 + offsets)[:, 0]
    torch.testing.assert_close(values, torch.tensor([1.0, 0.0, 0.0, 0.75**2 / 2]), rtol=1e-4, atol=1e-5)


def test_channels_are_sines_of_even_octaves_or_the_basis_itself():
    bases, phi = some_bases(5, 3), torch.tensor([0.2, 1.0])
    assert bases.frequencies(4).tolist() == pytest.approx([1, 2, 4, 8])
    torch.testing.assert_close(channels(phi, bases.frequencies(4))[1], torch.tensor([1.0, 2, 4, 8]).sin())
    assert torch.equal(channels(phi, replace(bases, waves=(0.0, 0.0)).frequencies(3)), phi[:, None].expand(2, 3))


def test_crowded_cells_keep_the_nearest():
    centers = torch.full((200, 3), 0.5)
    centers[:, 0] += torch.linspace(0, 0.3, 200)
    reach = torch.eye(3).repeat(200, 1, 1) * 0.3**2
    bases = listed(centers, shapes_of(reach), (1.0, 1.0))
    counts = bases.starts.diff()
    assert int(counts.max()) == MAX_LISTED
    _, item, _ = near(bases, torch.full((1, 3), 0.5))
    assert set(range(10)) <= set(item.tolist())


def test_clusters_lie_where_weight_is_and_have_its_shape():
    generator = torch.Generator().manual_seed(0)
    points = 0.5 + torch.randn(20_000, 3, generator=generator) * torch.tensor([0.1, 0.02, 0.002])
    weights = (points[:, 0] > 0.5).float()
    centers, shapes = clustered(points, weights, 40, 0.001, 0)
    assert (centers[:, 0] > 0.45).all()
    bases = listed(centers, shapes, (0.0, 0.0))
    upper = torch.zeros(len(bases), 3, 3)
    rows, columns = torch.triu_indices(3, 3)
    upper[:, rows, columns] = shapes
    half = torch.linalg.inv(upper).norm(dim=2).median(dim=0).values
    assert half[0] > half[1] > 2 * half[2]
    # Nearly all weight is reached by some basis.
    reached = near(bases, points[weights > 0])[0].unique()
    assert len(reached) > 0.97 * float(weights.sum())


def test_even_bases_are_round_and_share_the_volume():
    points = torch.rand(1000, 3, generator=torch.Generator().manual_seed(1))
    centers, shapes = even(points, 1.0, 64, torch.Generator().manual_seed(2))
    assert centers.shape == (64, 3)
    assert shapes.unique(dim=0).shape == (1, 6)
    assert shapes[0, 1] == 0


def test_impossible_bases_are_refused():
    centers, shapes = torch.rand(4, 3), shapes_of(0.01 * torch.eye(3).repeat(4, 1, 1))
    for bad, words in (
        ((centers * torch.nan, shapes, (1.0, 8.0)), "bases: expected finite centres and shapes"),
        ((centers, -shapes, (1.0, 8.0)), "bases: expected shapes with diagonals above 0"),
        ((centers, shapes, (2.0, 1.0)), r"waves: expected 0 < least <= greatest <= 1000, or 0 and 0, got \[2.0, 1.0\]"),
        ((centers[:0], shapes[:0], (1.0, 8.0)), "bases: expected at least one, got none"),
        ((torch.rand(4, 4), torch.rand(4, 10), (1.0, 8.0)), "expected two or three dimensions, got 4"),
    ):
        with pytest.raises(ValueError, match=words):
            listed(*bad)
    thin = torch.full((100_000, 6), 1e-3)
    many = torch.cat([torch.full((100_001, 1), 500.0).expand(-1, 6), thin])
    with pytest.raises(ValueError, match="cells each: too many"):
        listed(torch.rand(len(many), 3), many, (1.0, 8.0))


def test_a_field_has_bases_where_its_kind_is_rbf():
    field = random_field("rbf")
    with pytest.raises(ValueError, match="bases: expected some of a field of the kind rbf alone, got none of rbf"):
        replace(field, bases=None)
    with pytest.raises(ValueError, match="got 60 of vm"):
        replace(random_field("vm"), bases=field.bases)
    with pytest.raises(ValueError, match=r"density bases: expected shape \[60, R\], got \[59, 16\]"):
        replace(field, density=(*field.density[:-1], field.density[-1][1:]))
    with pytest.raises(BackendUnavailable, match="rbf fields are rendered by cpu and reference only"):
        choose_backend("cuda", field)


def test_bases_come_back_from_a_file_bit_by_bit(tmp_path: Path):
    scene = Scene(random_field("rbf", has_occupancy=True).to(dtype=torch.float32))
    write_scene(scene, tmp_path / "a.s3d")
    back, field = read_scene(tmp_path / "a.s3d").field(), scene.field()
    assert back.bases is not None
    assert field.bases is not None
    for name in ("centers", "shapes", "items", "starts"):
        assert torch.equal(getattr(back.bases, name), getattr(field.bases, name))
    assert back.bases.waves == field.bases.waves
    assert all(torch.equal(a, b) for a, b in zip(back.factors(), field.factors(), strict=True))
    assert "60 radial bases" in scene.size_text()


def test_damaged_bases_are_refused(tmp_path: Path):
    container = encode_field(Scene(random_field("rbf").to(dtype=torch.float32)))
    for row, words in (
        (None, "bases: expected a table, got None"),
        ({"count": 10**9, "waves": [1.0, 8.0]}, "count: expected 1 to"),
        ({"count": 61, "waves": [1.0, 8.0]}, "the chunk .bases.: expected 2196 bytes, got 2160"),
        ({"count": 60, "waves": [1.0]}, "waves: expected 2 numbers"),
        ({"count": 60, "waves": [9.0, 8.0]}, "waves: expected 0 < least"),
    ):
        with pytest.raises(FormatError, match=words):
            decode_field(replace(container, meta={**container.meta, "bases": row}), tmp_path / "b.s3d")
    for data, words in ((b"123", "cannot be inflated"), (None, "the chunk 'bases' is missing")):
        chunks = {name: value for name, value in container.chunks.items() if name != "bases"}
        chunks |= {} if data is None else {"bases": data}
        with pytest.raises(FormatError, match=words):
            decode_field(replace(container, chunks=chunks), tmp_path / "b.s3d")


@pytest.mark.parametrize("placing", ["kmeans", "even"])
def test_a_fit_with_bases_learns_the_ball(placing: str):
    result = fit_field(ball_capture(), replace(RBF_SETTINGS, placing=placing))
    assert result.validation is not None
    assert result.validation.psnr > 24
    field: Field = result.field
    assert field.kind == "rbf"
    assert field.bases is not None
    assert len(field.bases) == 300
    assert field.is_finite()
    # What bases say is used: their rows have grown from all but 0.
    assert field.color[-1].abs().mean() > 0.01
    if placing == "kmeans":
        low, high = field.box
        radius = (low + field.bases.centers * (high - low)).norm(dim=1)
        assert (radius - 0.6).abs().median() < 0.1


def test_new_bases_leave_the_field_as_it_is():
    field = random_field("vm", has_occupancy=True).to(dtype=torch.float32)
    settings = replace(RBF_SETTINGS, density_rank=16, color_rank=32)
    more = with_bases(field, settings, RayPool(ball_capture()), torch.Generator().manual_seed(0))
    points = field.box[0] + torch.rand(200, 3) * (field.box[1] - field.box[0])
    before, after = (field_cpu.NativeField(f).density_features(points) for f in (field, more))
    torch.testing.assert_close(after, before, rtol=0, atol=0.05)
    assert more.ranks == field.ranks


def test_a_stopped_fit_of_bases_goes_on_to_the_same_bits(tmp_path: Path):
    settings = replace(RBF_SETTINGS, max_steps=24)
    whole = fit_field(ball_capture(), settings)
    for stop_at in (10, 20):
        path, steps = tmp_path / f"{stop_at}.pt", iter(range(1, 100))
        hooks = FieldHooks(should_stop=lambda: next(steps) == stop_at, checkpoint=path)  # noqa: B023
        assert not fit_field(ball_capture(), settings, hooks).is_finished
        assert same(whole, fit_field(ball_capture(), settings, FieldHooks(checkpoint=path)))


def test_settings_of_bases_out_of_range_are_refused():
    for change, words in (
        ({"bases": 0}, "bases: expected 1 to 262144, got 0"),
        ({"waves": 0.5}, "waves: expected 0 or 1 to 1000, got 0.5"),
        ({"grow_at": ()}, "at least one growth, which makes the leaves or the bases"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(RBF_SETTINGS, **change)
    assert field_preset("fast", "rbf").kind == "rbf"
