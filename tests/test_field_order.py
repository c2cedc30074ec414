"""Order of ranks and heads: nothing changes where all are there, and most is seen where some are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from field_scenes import random_field
from small_scenes import views_around

from scene3d.compress.field_order import order_ranks
from scene3d.core.errors import FormatError
from scene3d.core.fields import HARMONIC_FEATURES, Field, decoder_of
from scene3d.core.scene import Scene
from scene3d.io.field_heads import head_of, shifted, with_head
from scene3d.io.field_steps import Steps, decode_steps, encode_steps, group_of
from scene3d.ops.rays import camera_rays
from scene3d.render import field_cpu
from scene3d.render.field import render_field
from scene3d.render.field_cpu import NativeField

if not field_cpu.is_available():
    pytest.skip("the native module is not built", allow_module_level=True)

PATH, VIEWS = Path("x.s3d"), views_around(4, 24)


def field_of(kind: str) -> Field:
    return random_field(kind, nodes=(20, 16, 18), has_occupancy=True).to(dtype=torch.float32)


def error(field: Field, truth: Field) -> float:
    return float((render_field(field, VIEWS).rgb - render_field(truth, VIEWS).rgb).square().mean())


def features_of(field: Field) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean features along rays, of all ranks and of the decoder."""
    rows, columns = torch.cartesian_prod(torch.arange(24), torch.arange(24)).repeat(4, 1).unbind(dim=1)
    rays = camera_rays(VIEWS, torch.arange(4).repeat_interleave(24 * 24), columns, rows)
    sums = NativeField(field).march(*rays, None)
    seen = sums.opacity > 0.05
    means = sums.features[seen] / sums.opacity[seen, None]
    return means, means @ field.decoder.basis


@pytest.mark.parametrize("kind", ["vm", "cp", "trivec", "rbf"])
def test_the_order_changes_nothing_and_heads_bring_few_ranks_nearer_to_all(kind: str):
    field = field_of(kind)
    found = order_ranks(field, VIEWS)
    assert torch.allclose(render_field(found.field, VIEWS).rgb, render_field(field, VIEWS).rgb, atol=1e-4)
    group, rank = group_of(field.kind, field.ranks[1]), field.ranks[1]
    assert [head.n_ranks for head in found.heads] == list(range(group, rank, group))
    products, truth = features_of(found.field)
    for head in found.heads:
        first = torch.arange(rank).repeat(field.n_modes) < head.n_ranks
        part = products[:, first] @ found.field.decoder.basis[first]
        shown = part @ head.mix + head.offset
        # Ranks of random numbers say little of each other.
        assert (shown - truth).square().mean() < (part - truth).square().mean()


def test_ranks_that_say_the_same_as_others_come_last():
    field = field_of("vm")
    twin = tuple(torch.cat([v[..., :16], 0.9 * v[..., :16]], dim=-1).contiguous() for v in field.color)
    basis = field.decoder.basis.reshape(3, 32, -1)
    decoder = replace(field.decoder, basis=torch.cat([basis[:, :16]] * 2, dim=1).reshape(96, -1))
    found = order_ranks(replace(field, color=twin, decoder=decoder), VIEWS)
    head = next(head for head in found.heads if head.n_ranks == 16)
    assert error(with_head(found.field, head), found.field) < 1e-6


def test_a_decoder_takes_an_offset_in():
    decoder = random_field().decoder
    offset = torch.randn(decoder.basis.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.randn(50, len(offset), dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def hidden(decoder, x):
        terms = torch.cat([x, x.sin(), x.cos(), (2 * x).sin(), (2 * x).cos()], dim=1)
        return terms @ decoder.weights[0][: terms.shape[1]] + decoder.biases[0]

    torch.testing.assert_close(hidden(shifted(decoder, offset), x), hidden(decoder, x + offset))


def test_heads_come_back_from_a_file():
    found = order_ranks(field_of("vm"), VIEWS)
    whole = encode_steps(Scene(found.field), Steps(1e-3, 1e-3), found.heads)
    kept = {k: v for k, v in whole.chunks.items() if not k.startswith("color_") or k.split("_")[2] in ("0", "8")}
    back = decode_steps(replace(whole, chunks=kept), PATH)
    shown = with_head(found.field, found.heads[1])
    assert error(back, shown) < 0.1 * error(found.field, shown)
    head = found.heads[1]
    assert torch.allclose(head_of(16, head.rows()).mix, head.mix)


def test_damaged_heads_are_refused():
    found = order_ranks(field_of("vm"), VIEWS)
    whole = encode_steps(Scene(found.field), Steps(0.1, 0.1), found.heads)
    cut = {k: v for k, v in whole.chunks.items() if not k.startswith("color_") or k.endswith("_0")}
    for change, words in (
        ({"heads": [8, 48]}, "heads: expected numbers below 32"),
        ({"finer": 9}, "finer: expected 0 to 3, got 9"),
    ):
        with pytest.raises(FormatError, match=words):
            decode_steps(replace(whole, chunks=cut, meta={**whole.meta, **change}), PATH)
    with pytest.raises(FormatError, match="4 bytes of 'heads' do not hold"):
        decode_steps(replace(whole, chunks={**cut, "heads": b"1234"}), PATH)


def test_heads_of_harmonics_have_no_offset_and_bring_few_ranks_nearer_to_all():
    field = field_of("vm")
    basis = torch.randn(field.n_features, HARMONIC_FEATURES, generator=torch.Generator().manual_seed(2))
    field = replace(field, decoder=decoder_of([0.1 * basis]))
    found = order_ranks(field, VIEWS)
    assert torch.allclose(render_field(found.field, VIEWS).rgb, render_field(field, VIEWS).rgb, atol=1e-4)
    head = found.heads[-1]
    assert not head.offset.any()
    plain = head_of(head.n_ranks, torch.zeros(HARMONIC_FEATURES + 1, HARMONIC_FEATURES))
    assert error(with_head(found.field, head), field) < error(with_head(found.field, plain), field)
