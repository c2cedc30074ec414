"""Views from all around in tools/bench_compress.py."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from small_scenes import blob

from scene3d.core.scene import Scene

TOOLS = Path(__file__).resolve().parents[1] / "tools"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    import bench_compress

    return bench_compress


def test_views_go_around_at_two_heights(bench: ModuleType) -> None:
    views = bench.orbit_of(Scene(blob(200)), 8)
    assert len(views) == 8
    centers = views.centers()
    assert centers[:, 1].round(decimals=2).unique().numel() == 2
    middle = torch.tensor([0.0, 0.0, 0.0, 1.0])
    seen = views.viewmats @ middle
    assert (seen[:, :2].abs() < 0.2 * seen[:, 2:3]).all()
