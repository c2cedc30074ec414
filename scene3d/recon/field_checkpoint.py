"""Checkpoints of a field fit: complete and atomic; a resumed run gives the bytes of one that was not stopped."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from scene3d.core.capture import Capture
from scene3d.core.errors import FormatError
from scene3d.core.fields import Field, LeafLevel, decoder_of
from scene3d.core.hash_grid import HashGrid
from scene3d.core.warp import Warp
from scene3d.ops.radial_bases import listed
from scene3d.recon import checkpoint
from scene3d.recon.field_settings import FieldFitSettings
from scene3d.recon.field_state import FieldState

KIND = "field"
_PLAIN_FIELDS = (
    "step",
    "since_growth",
    "fraction",
    "seconds",
    "n_growths",
    "n_masks",
    "hit_step",
    "n_skipped",
    "n_bad",
)
_FIELD_NUMBERS = ("kind", "density_scale", "step", "density_shift", "shading")


def save(path: Path, state: FieldState, capture: Capture, settings: FieldFitSettings) -> None:
    """Write the state of a run.

    Raises:
        OutputError: the file cannot be written; what was there before stays.
    """
    values = state.field
    data = {
        "what": KIND,
        "numbers": {name: getattr(values, name) for name in _FIELD_NUMBERS},
        "box": values.box,
        "warp": None if values.warp is None else (values.warp.kind, values.warp.frame_from_world),
        "occupancy": values.occupancy,
        "levels": [(level.taken, level.nodes, level.is_shifted) for level in values.levels],
        "bases": None if values.bases is None else [values.bases.centers, values.bases.shapes, values.bases.waves],
        "grid": None if values.grid is None else [values.grid.cells, values.grid.row_bits],
        "density": list(values.density),
        "color": list(values.color),
        # Views of one flat array: saved each by itself, or torch would store the whole for each.
        "decoder": [value.clone() for value in values.decoder.tensors()],
        "moments": [list(pair) for pair in state.moments],
        "decoder_moments": list(state.decoder_moments),
        "generator": state.generator.get_state(),
        **{name: getattr(state, name) for name in _PLAIN_FIELDS},
    }
    checkpoint.write(path, data, capture, asdict(settings))


def load(path: Path, capture: Capture, settings: FieldFitSettings) -> FieldState:
    """Read the state of a run that used the same capture and settings.

    Raises:
        FormatError: no readable checkpoint, or one of another run.
    """
    data = checkpoint.read(path)
    if data.get("what") != KIND:
        raise FormatError(path, "belongs to a fit of Gaussians", remedy=checkpoint.START_AFRESH)
    checkpoint.check_same_run(path, data, capture, asdict(settings))
    try:
        generator = torch.Generator()
        generator.set_state(data["generator"])
        values = Field(
            box=data["box"],
            density=tuple(data["density"]),
            color=tuple(data["color"]),
            decoder=decoder_of(data["decoder"]),
            occupancy=data["occupancy"],
            levels=tuple(LeafLevel(*level) for level in data["levels"]),
            bases=None if data.get("bases") is None else listed(*data["bases"]),
            grid=None if data.get("grid") is None else HashGrid(*data["grid"]),
            warp=None if data["warp"] is None else Warp(*data["warp"]),
            **data["numbers"],
        )
        moments = [(mean, square) for mean, square in data["moments"]]
        mean, square = data["decoder_moments"]
        plain = {name: data[name] for name in _PLAIN_FIELDS}
        state = FieldState(values, moments, (mean, square), generator, **plain)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        problem = f"checkpoint is incomplete ({error})"
        raise FormatError(path, problem, remedy=checkpoint.START_AFRESH) from error
    state.make_room()
    return state
