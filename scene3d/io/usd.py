"""Gaussians as OpenUSD: .usdc, .usda and .usd with ParticleField3DGaussianSplat (OpenUSD 26.03 and newer); .usdz read.

Needs the package usd-core. Scales and opacities are activated, orientations real part first, coefficients of spherical
harmonics one Gaussian after the other, degree 0 included. Coordinates are written as they are, with the Y axis up as
USD assumes unless the scene says z; on reading, transforms are applied. Facts stand in the layer's custom data.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import scene3d
from scene3d.core.errors import FormatError
from scene3d.core.gaussians import SH_COUNTS, Gaussians, cat
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.atomic import atomic_write
from scene3d.io.binary import TRUNCATED, load_bytes
from scene3d.io.finite import keep_finite, lossy_ready
from scene3d.io.json_fields import parse_json
from scene3d.io.scene_facts import facts_from_info, info_from_facts
from scene3d.io.similarity import similarity
from scene3d.io.usd_prims import COLUMNS, FACTS, KIND, REFUSED
from scene3d.ops.rigid import transform_gaussians

MAGICS = (b"PXR-USDC", b"#usda", b"PK\x03\x04")


def read_usd(path: Path) -> Scene:
    """Read all Gaussians of a stage, moved to where their transforms put them.

    Raises:
        FormatError: the file is no USD, is damaged or holds no Gaussians.
        ModuleNotFoundError: usd-core is not installed.
    """
    from pxr import Tf  # noqa: F401 - says at once that it is missing

    if not load_bytes(path).startswith(MAGICS):
        raise FormatError(path, "expected a USD file, which starts with PXR-USDC, #usda or as a zip archive", 0)
    arrays = _read_apart(path)
    n_prims = sum(name.startswith("path_") for name in arrays)
    if n_prims == 0:
        raise FormatError(path, f"holds no {KIND}", remedy="A mesh is no scene of Gaussians.")
    gaussians = cat([_placed(path, arrays, i) for i in range(n_prims)])
    return Scene(keep_finite(gaussians, path), _info(path, str(arrays["facts"])))


def write_usd(scene: Scene, path: Path) -> None:
    """Write float32 attributes, uncompressed but for what .usdc does itself.

    Raises:
        OutputError: path cannot be written.
        ModuleNotFoundError: usd-core is not installed.
    """
    from pxr import Gf, Tf, Usd, UsdGeom, UsdVol, Vt

    gaussians = lossy_ready(scene.splats(), path)
    coefficients = torch.cat([gaussians.sh0, gaussians.shN], dim=1).reshape(-1, 3)
    quats = torch.nn.functional.normalize(gaussians.quats, dim=1).tolist()
    with atomic_write(path) as temporary:
        stage = Usd.Stage.CreateNew(str(temporary))
        is_z_up = scene.info.up is not None and abs(scene.info.up[2]) > 0.9
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z if is_z_up else UsdGeom.Tokens.y)
        stage.GetRootLayer().customLayerData = {FACTS: json.dumps(_facts(scene.info))}
        splats = UsdVol.ParticleField3DGaussianSplat.Define(stage, "/Splats")
        stage.SetDefaultPrim(splats.GetPrim())

        def put(name: str, value: Any) -> None:
            splats.GetPrim().GetAttribute(name).Set(value)

        put("positions", Vt.Vec3fArray.FromNumpy(_plain(gaussians.means)))
        put("orientations", Vt.QuatfArray([Gf.Quatf(*quat) for quat in quats]))
        put("scales", Vt.Vec3fArray.FromNumpy(_plain(gaussians.scales)))
        put("opacities", Vt.FloatArray.FromNumpy(_plain(gaussians.opacities)))
        put("radiance:sphericalHarmonicsDegree", gaussians.sh_degree)
        put("radiance:sphericalHarmonicsCoefficients", Vt.Vec3fArray.FromNumpy(_plain(coefficients)))
        try:
            stage.GetRootLayer().Save()
        except Tf.ErrorException as error:
            # The first line that quotes is the one that knows why; atomic_write makes it an OutputError.
            reason = next((line.split("'")[-2] for line in str(error).splitlines() if line.count("'") > 3), "")
            raise OSError(reason or "USD says no more") from error


def _read_apart(path: Path) -> dict[str, np.ndarray]:
    """What usd_prims finds, which runs in another process: USD's library can crash on damaged files."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "prims.npz"
        command = [sys.executable, "-m", "scene3d.io.usd_prims", str(path.resolve()), str(out)]
        root = str(Path(scene3d.__file__).resolve().parents[1])
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        child = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": paths})
        lines = child.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        if child.returncode == REFUSED:
            raise FormatError(path, f"USD cannot read it: {lines[-1]}", remedy=TRUNCATED)
        if child.returncode != 0 or not out.is_file():
            raise FormatError(path, f"USD crashes on it (exit code {child.returncode})", remedy=TRUNCATED)
        with np.load(out) as arrays:
            return dict(arrays)


def _placed(path: Path, arrays: dict[str, np.ndarray], i: int) -> Gaussians:
    where, degree = str(arrays[f"path_{i}"]), int(arrays[f"degree_{i}"])
    means, scales, quats, opacities, rest = (torch.from_numpy(arrays[f"{name}_{i}"]) for name in COLUMNS)
    if not 0 <= degree <= 3:
        raise FormatError(path, f"{where}: expected spherical harmonics of degree 0 to 3, got {degree}")
    n, n_coefficients = len(means), SH_COUNTS[degree]
    counts = [len(scales), len(quats), len(opacities), len(rest) // n_coefficients]
    if any(count != n for count in counts) or len(rest) != n * n_coefficients:
        raise FormatError(path, f"{where}: expected {n} scales, orientations, opacities, harmonics, got {counts}")
    rest = rest.view(n, n_coefficients, 3)
    logits = opacities[:, 0].logit()
    part = Gaussians(means, quats, scales.log(), logits, rest[:, :1].contiguous(), rest[:, 1:].contiguous())
    moved = similarity(path, where, arrays[f"world_from_prim_{i}"])
    return part if moved is None else transform_gaussians(part, moved)


def _facts(info: SceneInfo) -> dict[str, Any]:
    return {**facts_from_info(info), "made_by": info.made_by}


def _info(path: Path, text: str) -> SceneInfo:
    if not text:
        return SceneInfo()
    facts = parse_json(path, FACTS, text.encode(errors="replace"))
    return info_from_facts(facts, facts.text("made_by"))


def _plain(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.numpy(), np.float32)
