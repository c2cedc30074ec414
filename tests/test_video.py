"""Videos: sharpest frames out, rendered frames in, hostile files."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageFilter

from scene3d.core.errors import CaptureError, FormatError, OutputError
from scene3d.io.video import extract_sharp_frames, write_video

# Mean error of H.264 at crf 18 and VP9 at crf 30 on smooth patterns is 1 to 3 levels; another frame differs by 15.
CODED_TOLERANCE = 5.0


def pattern(n_frames: int = 24, height: int = 96, width: int = 128, blurred: tuple[int, ...] = ()) -> list[np.ndarray]:
    """A smooth texture that moves to the left; frames in `blurred` are out of focus."""
    # One tint: 4:2:0 halves the resolution of colours, and fast changes of these are not what is tested.
    noise = (np.random.default_rng(0).integers(0, 255, (24, 48, 1)) * [1.0, 0.8, 0.6]).astype(np.uint8)
    texture = Image.fromarray(noise).resize((384, 192), Image.Resampling.BICUBIC)
    frames = []
    for i in range(n_frames):
        frame = texture.crop((2 * i, 0, 2 * i + width, height))
        frames.append(np.asarray(frame.filter(ImageFilter.GaussianBlur(6)) if i in blurred else frame))
    return frames


def read_video(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def turn_clockwise(path: Path) -> None:
    """Patch the display matrix of an .mp4 as a phone held upright writes it."""
    data = bytearray(path.read_bytes())
    identity = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    at = data.index(identity, data.index(b"tkhd"))
    data[at : at + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_written_video_holds_the_frames(tmp_path: Path, suffix: str) -> None:
    frames = pattern()
    assert write_video(tmp_path / f"v{suffix}", frames, fps=24) == len(frames)
    read = read_video(tmp_path / f"v{suffix}")
    assert len(read) == len(frames)
    assert np.abs(read[5].astype(float) - frames[5]).mean() < CODED_TOLERANCE


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_colours_survive(tmp_path: Path, suffix: str) -> None:
    frame = np.full((64, 64, 3), (200, 40, 40), np.uint8)
    write_video(tmp_path / f"v{suffix}", [frame] * 3)
    assert np.abs(read_video(tmp_path / f"v{suffix}")[0][32, 32].astype(int) - (200, 40, 40)).max() <= 3


def test_written_gif_holds_the_frames(tmp_path: Path) -> None:
    frames = pattern(5)
    write_video(tmp_path / "v.gif", frames, fps=10)
    with Image.open(tmp_path / "v.gif") as image:
        assert (image.n_frames, image.size, image.info["duration"]) == (5, (128, 96), 100)


def test_odd_sizes_are_padded(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", pattern(3, height=33, width=47))
    assert read_video(tmp_path / "v.mp4")[0].shape == (34, 48, 3)


def test_frames_may_come_from_a_generator(tmp_path: Path) -> None:
    assert write_video(tmp_path / "v.mp4", (frame for frame in pattern(4)), fps=29.97) == 4


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "at least one frame"),
        ([np.zeros((4, 4), np.uint8)], r"expected \[H, W, 3\] uint8, got \[4, 4\]"),
        ([np.zeros((4, 4, 3), np.float32)], "uint8, got .* float32"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)], "frame 1: expected shape"),
    ],
)
def test_wrong_frames_are_refused_and_leave_no_file(tmp_path: Path, frames: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "v.mp4", frames)
    assert list(tmp_path.iterdir()) == []


def test_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.mp4, \.webm, \.gif, got 'v\.wmv'"):
        write_video(tmp_path / "v.wmv", pattern(2))


def test_unwritable_video_names_path_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another output"):
        write_video(tmp_path / "file" / "v.mp4", pattern(2))


def test_sharpest_frame_of_each_window_is_taken(tmp_path: Path) -> None:
    sharp = {3, 8, 13, 22}
    frames = pattern(24, blurred=tuple(i for i in range(24) if i not in sharp))
    write_video(tmp_path / "v.mp4", frames, fps=24)
    extracted = extract_sharp_frames(tmp_path / "v.mp4", tmp_path / "frames", 4)
    assert extracted.names == tuple(f"frame_{i:05d}.jpg" for i in range(1, 5))
    assert {round(time * 24) for time in extracted.times} == sharp
    with Image.open(tmp_path / "frames" / "frame_00002.jpg") as image:
        assert np.abs(np.asarray(image, float) - frames[8]).mean() < CODED_TOLERANCE


def test_rotation_of_a_phone_is_applied(tmp_path: Path) -> None:
    frames = pattern(6)
    write_video(tmp_path / "v.mp4", frames, fps=6)
    turn_clockwise(tmp_path / "v.mp4")
    extracted = extract_sharp_frames(tmp_path / "v.mp4", tmp_path / "frames", 6)
    assert extracted.rotation_deg == 90
    with Image.open(tmp_path / "frames" / "frame_00001.jpg") as image:
        assert np.abs(np.asarray(image, float) - np.rot90(frames[0], -1)).mean() < CODED_TOLERANCE


def test_short_video_gives_what_it_has(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", pattern(5), fps=24)
    extracted = extract_sharp_frames(tmp_path / "v.mp4", tmp_path / "frames", 50)
    assert len(extracted.names) == 5
    assert "5 frames instead of 50" in extracted.notices[0]


def test_second_extraction_replaces_the_first(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", pattern(8), fps=24)
    extract_sharp_frames(tmp_path / "v.mp4", tmp_path / "frames", 8)
    extract_sharp_frames(tmp_path / "v.mp4", tmp_path / "frames", 3)
    assert len(list((tmp_path / "frames").iterdir())) == 3


def test_foreign_files_are_not_replaced(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", pattern(4))
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"holds other files \(holiday\.jpg\)"):
        extract_sharp_frames(tmp_path / "v.mp4", tmp_path / "frames", 2)


def test_missing_video_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"no\.mp4: expected a video file, it does not exist"):
        extract_sharp_frames(tmp_path / "no.mp4", tmp_path / "frames", 2)


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 50])
def test_file_that_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(FormatError, match=r"v\.mp4: .*re-encode it"):
        extract_sharp_frames(tmp_path / "v.mp4", tmp_path / "frames", 2)
    assert not (tmp_path / "frames").exists()


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_truncated_video_gives_frames_or_a_clear_error(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"v{suffix}"
    write_video(path, pattern(24), fps=24)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    folder = tmp_path / "frames"
    try:
        n_frames = len(extract_sharp_frames(path, folder, 4).names)
        message = str(path)
    except (FormatError, CaptureError) as error:
        n_frames, message = 0, str(error)
    assert str(path) in message
    assert n_frames != 1
    assert n_frames == (len(list(folder.iterdir())) if folder.exists() else 0)


def test_count_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="count: expected at least 1, got 0"):
        extract_sharp_frames(tmp_path / "v.mp4", tmp_path / "frames", 0)
