"""What each format can hold, so that whoever writes one is told what is lost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scene3d.core.gaussians import SH_COUNTS
from scene3d.core.scene import Scene


@dataclass(frozen=True)
class Capability:
    """What a format keeps of a scene.

    Attributes:
        sh_degree: Highest degree of spherical harmonics.
        antialiased: The mark that a scene was fitted with opacity compensation.
        facts: Up axis, source and notes.
        is_exact: Every number comes back with the same bits; otherwise rounded.
    """

    sh_degree: int = 3
    antialiased: bool = True
    facts: bool = True
    is_exact: bool = False


# Formats that are not listed hold everything. Longer suffixes first, as in the registry.
CAPABILITIES = {
    ".compressed.ply": Capability(),
    ".ply": Capability(is_exact=True),
    ".splat": Capability(sh_degree=0, antialiased=False, facts=False),
    ".sog": Capability(),
    "meta.json": Capability(),
    ".spz.glb": Capability(),
    ".glb": Capability(is_exact=True),
    ".spz": Capability(facts=False),
    ".usdc": Capability(is_exact=True),
    ".usda": Capability(is_exact=True),
    ".usd": Capability(is_exact=True),
}


def kept_degree(scene: Scene, path: Path) -> int:
    """Degree of the spherical harmonics that the format of `path` keeps of the scene."""
    holds = _capability(path)
    degree = scene.splats().sh_degree
    return degree if holds is None else min(holds.sh_degree, degree)


def losses(scene: Scene, path: Path) -> tuple[str, ...]:
    """What of `scene` the format of `path` has no place for, in words; rounding is not among it."""
    holds = _capability(path)
    if holds is None:
        return ()
    info, lost = scene.info, []
    n_dropped = 3 * (SH_COUNTS[scene.splats().sh_degree] - SH_COUNTS[kept_degree(scene, path)])
    if n_dropped:
        above = f" above degree {holds.sh_degree}" if holds.sh_degree else ""
        lost.append(f"spherical harmonics{above} ({n_dropped} coefficients of each Gaussian dropped)")
    if info.antialiased and not holds.antialiased:
        lost.append("the antialiased mark (viewers will show it too opaque from afar)")
    facts = [word for word, value in (("up axis", info.up), ("source", info.source), ("notes", info.notes)) if value]
    if facts and not holds.facts:
        lost.append(f"the {' and '.join(facts)}")
    return tuple(lost)


def _capability(path: Path) -> Capability | None:
    name = path.name.lower()
    return next((holds for suffix, holds in CAPABILITIES.items() if name.endswith(suffix)), None)
