"""What this machine has for scene3d, why something is not available, and the remedy."""

from __future__ import annotations

from dataclasses import dataclass

from scene3d.core.errors import Scene3dError
from scene3d.report.machine import Finding, examine, is_broken

MARKS = {"ok": "+", "absent": "-", "broken": "!"}


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


def run(config: Config) -> None:
    """Print all findings.

    Raises:
        Scene3dError: something is broken that no command can do without.
    """
    groups = examine()
    for heading, findings in groups.items():
        print(heading)
        for finding in findings:
            print(_line(finding))
    if is_broken(groups):
        raise Scene3dError("this installation cannot work: see the lines marked ! above")
    print("all that the core needs is there")


def _line(finding: Finding) -> str:
    remedy = f"\n    {'':14} -> {finding.remedy}" if finding.remedy and finding.state != "ok" else ""
    return f"  {MARKS[finding.state]} {finding.name:<14} {finding.text}{remedy}"
