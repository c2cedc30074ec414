"""Gaussians as OpenUSD: .usdc, .usda and .usd with ParticleField3DGaussianSplat (OpenUSD 26.03 and newer); .usdz read.

Needs the package usd-core. Scales and opacities are activated, orientations real part first, coefficients of spherical
harmonics one Gaussian after the other, degree 0 included. Coordinates are written as they are, with the Y axis up as
USD assumes unless the scene says z; on reading, transforms are applied. Facts stand in the layer's custom data.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scene3d.core.errors import FormatError
from scene3d.core.gaussians import SH_COUNTS, Gaussians, cat
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.atomic import atomic_write
from scene3d.io.binary import TRUNCATED, load_bytes
from scene3d.io.finite import keep_finite, lossy_ready
from scene3d.io.json_fields import parse_json
from scene3d.io.scene_facts import facts_from_info, info_from_facts
from scene3d.io.similarity import similarity
from scene3d.ops.rigid import transform_gaussians

KIND = "ParticleField3DGaussianSplat"
FACTS = "scene3d"
MAGICS = (b"PXR-USDC", b"#usda", b"PK\x03\x04")


def read_usd(path: Path) -> Scene:
    """Read all Gaussians of a stage, moved to where their transforms put them.

    Raises:
        FormatError: the file is no USD, is damaged or holds no Gaussians.
        ModuleNotFoundError: usd-core is not installed.
    """
    from pxr import Tf, Usd, UsdGeom

    if not load_bytes(path).startswith(MAGICS):
        raise FormatError(path, "expected a USD file, which starts with PXR-USDC, #usda or as a zip archive", 0)
    try:
        stage = Usd.Stage.Open(str(path))
        cache = UsdGeom.XformCache()
        found = [prim for prim in stage.Traverse() if prim.GetTypeName() == KIND]
        parts = [_placed(path, prim, np.array(cache.GetLocalToWorldTransform(prim)).T) for prim in found]
    except Tf.ErrorException as error:
        first_line = str(error).strip().splitlines()[-1]
        raise FormatError(path, f"USD cannot read it: {first_line}", remedy=TRUNCATED) from error
    if not parts:
        raise FormatError(path, f"holds no {KIND}", remedy="A mesh is no scene of Gaussians.")
    degree = max(part.sh_degree for part in parts)
    gaussians = cat([_with_degree(part, degree) for part in parts])
    return Scene(keep_finite(gaussians, path), _info(path, stage))


def write_usd(scene: Scene, path: Path) -> None:
    """Write float32 attributes, uncompressed but for what .usdc does itself.

    Raises:
        OutputError: path cannot be written.
        ModuleNotFoundError: usd-core is not installed.
    """
    from pxr import Gf, Usd, UsdGeom, UsdVol, Vt

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
        stage.GetRootLayer().Save()


def _placed(path: Path, prim: Any, world_from_prim: np.ndarray) -> Gaussians:
    means, scales = _column(path, prim, "positions", 3), _column(path, prim, "scales", 3)
    quats, opacities = _column(path, prim, "orientations", 4), _column(path, prim, "opacities", 1)[:, 0]
    degree = prim.GetAttribute("radiance:sphericalHarmonicsDegree").Get() or 0
    if not 0 <= degree <= 3:
        raise FormatError(path, f"{prim.GetPath()}: expected spherical harmonics of degree 0 to 3, got {degree}")
    rest = _column(path, prim, "radiance:sphericalHarmonicsCoefficients", 3)
    n, n_coefficients = len(means), SH_COUNTS[degree]
    counts = [len(scales), len(quats), len(opacities), len(rest) // n_coefficients]
    if any(count != n for count in counts) or len(rest) != n * n_coefficients:
        problem = f"{prim.GetPath()}: expected {n} scales, orientations, opacities, harmonics, got {counts}"
        raise FormatError(path, problem)
    rest = rest.view(n, n_coefficients, 3)
    part = Gaussians(means, quats, scales.log(), opacities.logit(), rest[:, :1].contiguous(), rest[:, 1:].contiguous())
    where = similarity(path, str(prim.GetPath()), world_from_prim)
    return part if where is None else transform_gaussians(part, where)


def _column(path: Path, prim: Any, name: str, n_columns: int) -> Tensor:  # [N, n_columns]
    for suffix in ("", "h"):  # h = half precision
        value = prim.GetAttribute(name + suffix).Get()
        if value is not None:
            if len(value) == 0:
                return torch.zeros(0, n_columns)
            rows = np.array(value, np.float32).reshape(len(value), -1)
            if rows.shape[1] != n_columns:
                raise FormatError(path, f"{prim.GetPath()}.{name}: expected {n_columns} columns, got {rows.shape[1]}")
            # numpy sees quaternions as they lie in memory: imaginary part first.
            order = [3, 0, 1, 2] if n_columns == 4 else list(range(n_columns))
            return torch.from_numpy(rows[:, order].copy())
    raise FormatError(path, f"{prim.GetPath()}: has no {name}")


def _with_degree(gaussians: Gaussians, degree: int) -> Gaussians:
    padding = torch.zeros(len(gaussians), SH_COUNTS[degree] - 1 - gaussians.shN.shape[1], 3)
    return Gaussians(**{**gaussians.params(), "shN": torch.cat([gaussians.shN, padding], dim=1)})


def _facts(info: SceneInfo) -> dict[str, Any]:
    return {**facts_from_info(info), "made_by": info.made_by}


def _info(path: Path, stage: Any) -> SceneInfo:
    text = stage.GetRootLayer().customLayerData.get(FACTS)
    if not isinstance(text, str):
        return SceneInfo()
    facts = parse_json(path, FACTS, text.encode())
    return info_from_facts(facts, facts.text("made_by"))


def _plain(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.numpy(), np.float32)
