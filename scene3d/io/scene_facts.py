"""Facts about a scene as a JSON object, for formats with room for one, and as text."""

from __future__ import annotations

from typing import Any

import numpy as np

from scene3d.core.scene import SceneInfo
from scene3d.io.json_fields import JsonObject


def facts_from_info(info: SceneInfo) -> dict[str, Any]:
    """What is known, without who made it: formats have a place of their own for that."""
    facts = {"antialiased": info.antialiased, "up": info.up, "source": info.source, "notes": list(info.notes)}
    return {key: value for key, value in facts.items() if value}


def info_from_facts(facts: JsonObject, made_by: str) -> SceneInfo:
    """The inverse of facts_from_info.

    Raises:
        FormatError: a fact is of the wrong type.
    """
    up = facts.numbers("up", 3) if facts.has("up") else None
    notes = tuple(note for note in facts.items("notes") if isinstance(note, str))
    is_antialiased = facts.data.get("antialiased") is True
    return SceneInfo(is_antialiased, (up[0], up[1], up[2]) if up else None, facts.text("source"), made_by, notes)


def parse_axis(text: str) -> tuple[float, float, float] | None:
    """The direction that a comment names; None where it says nothing."""
    # A bare "y" is what Brush always writes, whatever the scene: it says nothing.
    if text in ("x", "z"):
        return (1.0, 0.0, 0.0) if text == "x" else (0.0, 0.0, 1.0)
    try:
        x, y, z = (float(word) for word in text.split())
    except ValueError:
        return None
    return (x, y, z) if all(np.isfinite((x, y, z))) and (x, y, z) != (0.0, 0.0, 0.0) else None
