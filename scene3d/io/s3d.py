"""Scenes as .s3d: the container names a codec, the codec makes the payload. One table of codecs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from scene3d.core.errors import FormatError
from scene3d.core.fields import Field
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene
from scene3d.io import field_codec, field_codes, field_steps, s3d_codebook, s3d_context, s3d_grid, s3d_lossless
from scene3d.io.s3d_container import Container, read_container, write_container

# What a codec offers: the payload of a container; the path is for the texts of errors.
CODECS: dict[str, Callable[[Container, Path], Gaussians | Field]] = {
    s3d_context.CODEC: s3d_context.decode_context,
    s3d_lossless.CODEC: s3d_lossless.decode_lossless,
    s3d_codebook.CODEC: s3d_codebook.decode_codebook,
    s3d_grid.CODEC: s3d_grid.decode_grid,
    field_codec.CODEC: field_codec.decode_field,
    field_steps.CODEC: field_steps.decode_steps,
    field_codes.CODEC: field_codes.decode_codes,
}
KINDS = ("splats", "field")
NEWER = "Use a newer scene3d, or the one that wrote it."


def read_s3d(path: Path) -> Scene:
    """Read a scene.

    Raises:
        FormatError: the file is damaged, or holds a kind of scene or a codec that this program does not know.
    """
    container = read_container(path)
    if container.kind not in KINDS:
        problem = f"holds a scene of the kind {container.kind!r}, expected one of {', '.join(KINDS)}"
        raise FormatError(path, problem, remedy=NEWER)
    if container.codec not in CODECS:
        problem = f"is written with the codec {container.codec!r}, expected one of {', '.join(CODECS)}"
        raise FormatError(path, problem, remedy=NEWER)
    return Scene(CODECS[container.codec](container, path), container.info)


def write_s3d(scene: Scene, path: Path) -> None:
    """Write a scene without any loss; `scene3d compress` makes smaller files.

    Raises:
        OutputError: path cannot be written.
    """
    if "splats" not in scene.capabilities:
        write_container(field_codec.encode_field(scene), path)
        return
    payload = scene.splats().detach().to("cpu", torch.float32)
    write_container(s3d_lossless.encode_lossless(Scene(payload, scene.info)), path)
