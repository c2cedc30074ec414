"""Videos in and out: the sharpest frames of a capture, and rendered frames as .mp4, .webm or .gif.

Frames are sRGB [H, W, 3] uint8, upright: the rotation a phone stores beside the pixels is applied.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scene3d.core.errors import CaptureError, FormatError, OutputError
from scene3d.io.atomic import atomic_write, make_folder, output_error
from scene3d.ops.sharpness import laplacian_variance

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

Frame = NDArray[np.uint8]

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".3gp"})
WRITTEN_SUFFIXES = (".mp4", ".webm", ".gif")
FRAME_QUALITY = 95
# Sharpness is compared on grey frames of this width: cheap, and blind to the codec's noise.
MEASURE_WIDTH = 320

_CODECS: dict[str, tuple[str, dict[str, str]]] = {
    ".mp4": ("libx264", {"crf": "18", "preset": "medium"}),
    ".webm": ("libvpx-vp9", {"crf": "30", "b": "0", "row-mt": "1"}),
}

# The index of an .mp4 goes to its start, so that a browser plays it while it loads.
_MUXER: dict[str, dict[str, str]] = {".mp4": {"movflags": "faststart"}}


@dataclass(frozen=True)
class ExtractedFrames:
    """What extract_sharp_frames wrote.

    Attributes:
        names: Files in the folder, in order of time.
        times: When each was, seconds.
        sharpness: Variance of the Laplacian of each.
        n_decoded: Frames looked at.
        duration: Length of the video, seconds.
        rotation_deg: Clockwise turn that was applied: 0, 90, 180 or 270.
        notices: Sentences for the user.
    """

    names: tuple[str, ...]
    times: tuple[float, ...]
    sharpness: tuple[float, ...]
    n_decoded: int
    duration: float
    rotation_deg: int
    notices: tuple[str, ...]


def extract_sharp_frames(
    video: Path, out_dir: Path, count: int, progress: Callable[[int, int], None] | None = None
) -> ExtractedFrames:
    """Write the sharpest frame of each of `count` equal stretches of time as frame_00001.jpg and so on.

    Args:
        video: The file.
        out_dir: New or empty folder, or one that holds frames of an earlier call, which are replaced.
        count: Frames wanted; fewer come where the video has fewer.
        progress: Told (frames written, count).

    Returns:
        What was written.

    Raises:
        ValueError: count is not positive.
        CaptureError: The video is missing or holds fewer than 2 frames.
        FormatError: It is no video, or broken from the start.
        OutputError: out_dir cannot be written or holds other files.
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count}")
    if not video.is_file():
        raise CaptureError(video, "expected a video file, it does not exist", "Check the path.")
    _require_replaceable(out_dir)
    staging = out_dir.with_name(f".{out_dir.name}.{secrets.token_hex(4)}")
    make_folder(staging)
    try:
        extracted = _extract(video, staging, count, progress)
        if len(extracted.names) < 2 <= count:
            raise CaptureError(
                video,
                f"expected a video of at least 2 frames, got {extracted.n_decoded} readable",
                "Film for 20 seconds or more while walking around the subject.",
            )
        if out_dir.exists():
            shutil.rmtree(out_dir)
        os.replace(staging, out_dir)
    except OSError as error:
        raise output_error(out_dir, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return extracted


def write_video(path: Path | str, frames: Iterable[Frame], fps: float = 30.0) -> int:
    """Write frames as a video; the suffix chooses .mp4 (H.264), .webm (VP9) or .gif.

    Odd sizes are padded by a repeated row or column (H.264 and VP9 in 4:2:0 need even ones); a GIF keeps its size.

    Args:
        path: The file; appears whole or not at all.
        frames: All of one size. Each [H, W, 3] uint8
        fps: Frames a second.

    Returns:
        How many frames were written.

    Raises:
        ValueError: Unknown suffix, no frames, or frames of different or wrong shape.
        OutputError: The file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITTEN_SUFFIXES:
        raise ValueError(f"path: expected a name that ends in {', '.join(WRITTEN_SUFFIXES)}, got {path.name!r}")
    if not 0 < fps <= 1000:
        raise ValueError(f"fps: expected more than 0 and at most 1000, got {fps}")
    checked = _checked(frames)
    first = next(checked, None)
    if first is None:
        raise ValueError("frames: expected at least one frame, got none")
    everything = itertools.chain([first], checked)
    with atomic_write(path) as temporary:
        if suffix == ".gif":
            return _write_gif(temporary, everything, fps)
        return _write_encoded(path, temporary, everything, fps, first.shape)


def _extract(video: Path, folder: Path, count: int, progress: Callable[[int, int], None] | None) -> ExtractedFrames:
    duration = _duration(video)
    names: list[str] = []
    times: list[float] = []
    sharpness: list[float] = []
    best: tuple[float, float, Any] | None = None
    window = rotation = n_decoded = 0
    notices: list[str] = []

    def write_best() -> None:
        if best is None:
            return
        name = f"frame_{len(names) + 1:05d}.jpg"
        rotated = np.rot90(best[2].to_ndarray(format="rgb24"), -rotation // 90)
        Image.fromarray(np.ascontiguousarray(rotated)).save(folder / name, "JPEG", quality=FRAME_QUALITY)
        names.append(name)
        times.append(round(best[1], 4))
        sharpness.append(round(best[0], 3))
        if progress is not None:
            progress(len(names), count)

    for time, frame in _decode(video, notices):
        n_decoded += 1
        rotation = round(-frame.rotation / 90) * 90 % 360
        now = min(int(time / duration * count), count - 1) if duration > 0 else 0
        if now > window:
            write_best()
            best, window = None, now
        score = _frame_sharpness(frame)
        if best is None or score > best[0]:
            best = (score, time, frame)
    write_best()
    if len(names) < count:
        notices.append(f"{len(names)} frames instead of {count}: the video has {n_decoded} readable frames")
    return ExtractedFrames(tuple(names), tuple(times), tuple(sharpness), n_decoded, duration, rotation, tuple(notices))


def _decode(video: Path, notices: list[str]) -> Iterator[tuple[float, VideoFrame]]:
    """Frames with their time from the start; a break in the middle ends them with a notice."""
    import av

    last = -1.0
    with _open(video) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        start = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
        rate = float(stream.average_rate or 30)
        try:
            for frame in container.decode(stream):
                # Files without time stamps count at the nominal rate.
                time = last + 1 / rate if frame.time is None else frame.time - start
                last = max(time, 0.0)
                yield last, frame
        except av.error.FFmpegError as error:
            if last < 0:
                raise FormatError(video, f"no frame can be read: {_message(error)}", remedy=_REENCODE) from error
            notices.append(f"{video.name} breaks off at {last:.1f} s ({_message(error)}); frames up to there are used")


def _duration(video: Path) -> float:
    """Seconds from the first to the end of the last frame, as far as packets tell: headers of broken files lie."""
    import av

    with _open(video) as container:
        stream = container.streams.video[0]
        base = float(stream.time_base or 0)
        begin, end, n_packets = np.inf, 0.0, 0
        try:
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                n_packets += 1
                if packet.pts is not None:
                    begin = min(begin, packet.pts * base)
                    end = max(end, (packet.pts + (packet.duration or 0)) * base)
        except av.error.FFmpegError:
            pass  # Decoding meets the same break and tells the user.
        if n_packets == 0:
            raise FormatError(video, "holds no video frames", remedy=_REENCODE)
        return end - begin if end > begin else n_packets / float(stream.average_rate or 30)


def _open(video: Path) -> InputContainer:
    import av

    try:
        container = av.open(str(video))
    except (av.error.FFmpegError, OSError) as error:
        raise FormatError(video, f"is not a readable video: {_message(error)}", remedy=_REENCODE) from error
    if not container.streams.video:
        container.close()
        raise FormatError(video, "holds no video stream", remedy="Give a file with pictures, not only sound.")
    return container


_REENCODE = "Play it in a video player to check it; copy it again from the camera or re-encode it as H.264 .mp4."


def _message(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def _frame_sharpness(frame: VideoFrame) -> float:
    width = min(MEASURE_WIDTH, frame.width)
    height = max(1, round(frame.height * width / frame.width))
    grey = frame.reformat(width=width, height=height, format="gray").to_ndarray()
    return laplacian_variance(grey.astype(np.float32))


def _require_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise OutputError(folder, "expected a folder or a new name", "Choose another output folder.")
    others = [p.name for p in folder.iterdir() if not (p.name.startswith("frame_") and p.suffix == ".jpg")]
    if others:
        raise OutputError(folder, f"holds other files ({others[0]})", "Choose another output folder or move them away.")


def _checked(frames: Iterable[Frame]) -> Iterator[Frame]:
    shape: tuple[int, ...] | None = None
    for i, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise ValueError(f"frame {i}: expected [H, W, 3] uint8, got {list(frame.shape)} {frame.dtype}")
        if shape is not None and frame.shape != shape:
            raise ValueError(f"frame {i}: expected shape {list(shape)} as the first, got {list(frame.shape)}")
        shape = frame.shape
        yield frame


def _write_encoded(path: Path, temporary: Path, frames: Iterable[Frame], fps: float, shape: tuple[int, ...]) -> int:
    import av

    codec, options = _CODECS[path.suffix.lower()]
    height, width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
    n_frames = 0
    try:
        with av.open(str(temporary), "w", options=_MUXER.get(path.suffix.lower(), {})) as container:
            stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            # Without these tags players guess the matrix from the size and colours shift.
            stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
            for frame in frames:
                padded = np.pad(frame, ((0, height - shape[0]), (0, width - shape[1]), (0, 0)), mode="edge")
                picture = av.VideoFrame.from_ndarray(padded, format="rgb24").reformat(
                    format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
                )
                container.mux(stream.encode(picture))
                n_frames += 1
            container.mux(stream.encode(None))
    except av.error.FFmpegError as error:
        remedy = f"Check the disk, or write {WRITTEN_SUFFIXES[-1]}, which needs no codec."
        raise OutputError(path, f"cannot be encoded: {_message(error)}", remedy) from error
    return n_frames


def _write_gif(temporary: Path, frames: Iterable[Frame], fps: float) -> int:
    pictures = [Image.fromarray(frame).quantize(256, method=Image.Quantize.MEDIANCUT) for frame in frames]
    # GIF counts hundredths of a second, and viewers slow down anything under two of them.
    duration = max(20, round(100 / fps) * 10)
    pictures[0].save(temporary, "GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0)
    return len(pictures)
