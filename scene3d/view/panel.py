"""The controls beside the picture, and the Look they stand for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from scene3d.core.scene import Scene
from scene3d.render.scene_points import scene_points
from scene3d.view.draw import Stock
from scene3d.view.look import MODES, SIDES, Box, Cut, Look, Vector

if TYPE_CHECKING:
    import viser

BACKGROUNDS: dict[str, Vector] = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0), "grey": (0.5, 0.5, 0.5)}


class LookPanel:
    """What to show.

    Args:
        gui: Where the controls go.
        stock: The scenes, which decide what there is to choose.
        changed: Called when a control was moved.
    """

    def __init__(self, gui: viser.GuiApi, stock: Stock, changed: Callable[[], None]) -> None:
        splats = [scene.splats() for scene in stock.scenes if scene.kind == "gaussians"]
        has_splats = len(splats) == len(stock.scenes)
        missing = {"error"} if stock.capture is None else set()
        missing |= set() if has_splats else {"ellipsoids"}
        self.marks = {name: marks.note for of_scene in stock.marks for name, marks in of_scene.items()}
        missing |= set() if self.marks else {"codes"}
        degree = max((gaussians.sh_degree for gaussians in splats), default=0)
        modes = [mode for mode in MODES if mode not in missing]
        self.mode = gui.add_dropdown("Show", modes, hint="error: against the photo chosen, from where it was taken")
        self.mark = gui.add_dropdown("Codes", list(self.marks) or [""], visible=False)
        self.mark_note = gui.add_markdown("", visible=False)
        self.side = gui.add_dropdown("Scene", SIDES, visible=len(stock.scenes) > 1)
        self.split = gui.add_slider("Split", 0.0, 1.0, 0.01, 0.5, visible=False)
        self.opacity = gui.add_slider("Min. opacity", 0.0, 1.0, 0.005, 0.0, visible=has_splats)
        self.degree = gui.add_slider("SH degree", 0, max(degree, 1), 1, degree, visible=degree > 0)
        self.background = gui.add_dropdown("Background", tuple(BACKGROUNDS))
        self.is_local: Any = gui.add_checkbox(
            "Draw in the browser",
            initial_value=False,
            visible=has_splats,
            hint="For slow networks: the browser needs a GPU, and shows colours that do not change with the view",
        )
        n_photos = 0 if stock.capture is None else len(stock.capture)
        self.photo: Any = gui.add_slider("Photo", 0, max(n_photos - 1, 1), 1, 0, visible=False)
        with gui.add_folder("Crop", expand_by_default=False, visible=has_splats):
            self.is_cropped = gui.add_checkbox("Crop", initial_value=False)
            self.axes = [
                gui.add_multi_slider(axis, low, high, (high - low) / 500, (low, high))
                for axis, (low, high) in zip("xyz", bounds(stock.scenes[0]), strict=True)
            ]
        controls: list[Any] = [self.mode, self.side, self.split, self.opacity, self.degree, self.background, self.photo]
        controls.append(self.mark)

        def moved(_: Any) -> None:
            self._show_what_applies()
            changed()

        for control in [*controls, self.is_local, self.is_cropped, *self.axes]:
            control.on_update(moved)

    def look(self) -> Look:
        """What the controls say."""
        box = None
        if self.is_cropped.value:
            ends = [sorted(axis.value) for axis in self.axes]
            box = Box((ends[0][0], ends[1][0], ends[2][0]), (ends[0][1], ends[1][1], ends[2][1]))
        return Look(
            mode=self.mode.value,
            side=self.side.value,
            split=self.split.value,
            cut=Cut(self.opacity.value, box),
            sh_degree=int(self.degree.value),
            background=BACKGROUNDS[self.background.value],
            photo=int(self.photo.value),
            mark=self.mark.value,
        )

    def choose_photo(self, i: int) -> None:
        """Compare with photo i from now on."""
        self.photo.value = i

    def _show_what_applies(self) -> None:
        self.split.visible = self.side.value == "split"
        self.photo.visible = self.mode.value == "error"
        self.mark.visible = self.mark_note.visible = self.mode.value == "codes"
        self.mark_note.content = self.marks.get(self.mark.value, "")


def bounds(scene: Scene) -> list[tuple[float, float]]:
    """Per axis the range that holds nearly all of the scene, a little widened; far strays would waste sliders."""
    places = scene_points(scene).positions
    if len(places) == 0:
        return [(-1.0, 1.0)] * 3
    # quantile() takes no more than 16 million numbers; a sample of them serves as well, and is there sooner.
    sample = places[:: max(1, math.ceil(len(places) / 50_000))].double()
    low, high = (sample.quantile(q, dim=0) for q in (0.002, 0.998))
    margin = 0.1 * (high - low) + 1e-3
    return list(zip((low - margin).tolist(), (high + margin).tolist(), strict=True))


def up_of(direction: torch.Tensor) -> Vector:
    """A tensor as viser takes directions."""
    x, y, z = direction.tolist()
    return (x, y, z)
