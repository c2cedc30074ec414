"""Checkpoints of a fit: complete and atomic. A run that is resumed gives the very bytes of one that was not stopped."""

from __future__ import annotations

import json
import pickle
import zipfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from scene3d.core.capture import Capture
from scene3d.core.errors import FormatError
from scene3d.core.push import Push
from scene3d.io.atomic import atomic_write
from scene3d.recon.densify import GradStats
from scene3d.recon.exposure import Exposure
from scene3d.recon.fit_state import FitState
from scene3d.recon.optim import AdamState
from scene3d.recon.pose_refine import PoseDeltas
from scene3d.recon.settings import FitSettings

VERSION = 1
# These may differ between the run that stopped and the one that goes on: they do not touch the result.
FREE_SETTINGS = ("eval_steps", "checkpoint_every", "backend")
START_AFRESH = "Start afresh with --no-resume, or choose another --out"


def save(path: Path, state: FitState, capture: Capture, settings: FitSettings) -> None:
    """Write the state of a run.

    Raises:
        OutputError: the file cannot be written; what was there before stays.
    """
    data = {
        "adam": _table(state.adam),
        "stats": _table(state.stats),
        "generator": state.generator.get_state(),
        "exposure": None if state.exposure is None else _table(state.exposure),
        "poses": None if state.poses is None else _table(state.poses),
        "push": None if state.push is None else _table(state.push) | {"v_masks": _gradient(state.push.masks)},
        **{name: getattr(state, name) for name in _PLAIN_FIELDS},
    }
    write(path, data, capture, asdict(settings))


def write(path: Path, data: dict[str, Any], capture: Capture, settings: dict[str, Any]) -> None:
    """Write plain data and tensors, with what they belong to.

    Raises:
        OutputError: the file cannot be written; what was there before stays.
    """
    owner = {"version": VERSION, "settings": json.dumps(settings), "capture": _fingerprint(capture)}
    with atomic_write(path) as temporary:
        torch.save({**owner, **data}, temporary)


def load(path: Path, capture: Capture, settings: FitSettings) -> FitState:
    """Read the state of a run that used the same capture and settings.

    Raises:
        FormatError: no readable checkpoint, or one of another run.
    """
    data = read(path)
    check_same_run(path, data, capture, asdict(settings))
    try:
        return _state(data)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FormatError(path, f"checkpoint is incomplete ({error})", remedy=START_AFRESH) from error


def _gradient(value: torch.Tensor | None) -> torch.Tensor | None:
    return None if value is None else value.grad


_PLAIN_FIELDS = ("order", "position", "step", "seconds", "fraction", "n_start", "n_dropped", "n_skipped")


def _table(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, tensors detached from autograd."""
    return {f.name: _detached(getattr(value, f.name)) for f in fields(value)}


def _detached(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _detached(v) for name, v in value.items()}
    return value.detach() if isinstance(value, torch.Tensor) else value


def read(path: Path) -> dict[str, Any]:
    """What `write` has written.

    Raises:
        FormatError: no readable checkpoint.
    """
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise FormatError(path, f"not a readable checkpoint ({error})", remedy=START_AFRESH) from error
    if not isinstance(data, dict) or data.get("version") != VERSION:
        found = data.get("version") if isinstance(data, dict) else None
        raise FormatError(path, f"expected a checkpoint of version {VERSION}, got {found}", remedy=START_AFRESH)
    return data


def check_same_run(path: Path, data: dict[str, Any], capture: Capture, settings: dict[str, Any]) -> None:
    """Check that a checkpoint belongs to this capture and these settings.

    Raises:
        FormatError: it does not.
    """
    if data.get("capture") != _fingerprint(capture):
        raise FormatError(path, "belongs to another capture or another image size", remedy=START_AFRESH)
    # JSON turns tuples to lists: both sides must have gone through it.
    ours, theirs = json.loads(json.dumps(settings)), json.loads(str(data.get("settings", "{}")))
    changed = [name for name in ours if name not in FREE_SETTINGS and ours[name] != theirs.get(name)]
    if changed:
        words = ", ".join(f"{name} was {theirs.get(name)}, now {ours[name]}" for name in changed)
        raise FormatError(path, f"belongs to a run with other settings: {words}", remedy=START_AFRESH)


def _fingerprint(capture: Capture) -> str:
    sizes = capture.cameras.sizes[list(capture.train)].tolist()
    names = [capture.cameras.names[i] for i in capture.train]
    return json.dumps([names, sizes])


def _push(table: dict[str, Any]) -> Push:
    push = Push(**{name: value for name, value in table.items() if name != "v_masks"})
    if push.masks is not None:
        push.masks.grad = table["v_masks"]
        push.masks.requires_grad_()
    return push


def _state(data: dict[str, Any]) -> FitState:
    generator = torch.Generator()
    generator.set_state(data["generator"])
    return FitState(
        adam=AdamState(**data["adam"]).requiring_grad(),
        stats=GradStats(**data["stats"]),
        generator=generator,
        exposure=None if data["exposure"] is None else Exposure(**data["exposure"]),
        poses=None if data["poses"] is None else PoseDeltas(**data["poses"]),
        # Checkpoints of before there were methods that push have none.
        push=None if data.get("push") is None else _push(data["push"]),
        **{name: data[name] for name in _PLAIN_FIELDS},
    )
