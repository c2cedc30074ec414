"""Photos: decoding, reduction, masks, damage, and the cache."""

import threading
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from scene3d.core.capture import Photo
from scene3d.core.errors import CaptureError
from scene3d.io.images import PhotoPlan, decode_image, load_photo, read_image_header
from scene3d.io.photo_cache import PhotoCache, photo_bytes
from scene3d.ops.lens import Lens
from scene3d.ops.undistort import lens_view


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(height, width):
    """An image whose detail a reduction keeps."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 17) * np.cos(y / 23), np.cos(x / 11), np.sin((x + y) / 19)]
    return np.stack([127 + 120 * wave for wave in waves], axis=-1).astype(np.uint8)


def plan(path, size, factor=1, lens=Lens(), final=None, mask=None):  # noqa: B008
    view = lens_view(lens, (size[0] * 1.2,) * 2, (size[0] / 2, size[1] / 2), size, factor)
    reduced = (view.width // factor, view.height // factor)
    return PhotoPlan(path, mask, False, size, view, factor, final or reduced)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def test_a_png_comes_back_bit_for_bit(tmp_path):
    pixels = noise(7, 9)
    photo = load_photo(plan(save(tmp_path / "a.png", pixels), (9, 7)))
    assert torch.equal(photo.rgb, torch.from_numpy(pixels))
    assert photo.alpha is None
    assert photo.mask is None


def test_alpha_comes_back_straight(tmp_path):
    pixels = noise(7, 9, 4)
    photo = load_photo(plan(save(tmp_path / "a.png", pixels), (9, 7)))
    assert torch.equal(photo.rgb, torch.from_numpy(pixels[..., :3].copy()))
    assert torch.equal(photo.alpha, torch.from_numpy(pixels[..., 3].copy()))


def test_reduction_is_the_mean_of_blocks(tmp_path):
    pixels = noise(13, 18)
    photo = load_photo(plan(save(tmp_path / "a.png", pixels), (18, 13), 4))
    expected = pixels[:12, :16].reshape(3, 4, 4, 4, 3).mean(axis=(1, 3))
    assert photo.rgb.shape == (3, 4, 3)
    assert np.abs(photo.rgb.numpy() - expected).max() <= 0.51


def test_colors_are_averaged_by_their_alpha(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = 200, 100, 50, 255
    pixels[1, 1] = 0, 0, 255, 0
    photo = load_photo(plan(save(tmp_path / "a.png", pixels), (2, 2), 2))
    assert photo.alpha.tolist() == [[64]]
    assert photo.rgb[0, 0].tolist() == pytest.approx([200, 100, 50], abs=2)


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("alpha", [False, True])
def test_lens_and_reduction_find_the_same_picture_for_any_factor(tmp_path, factor, alpha):
    pixels = smooth(240, 320)
    if alpha:
        pixels = np.concatenate([pixels, np.full((240, 320, 1), 200, np.uint8)], axis=-1)
    lens = Lens(radial=(0.05, -0.02), tangential=(0.001, -0.001))
    path = save(tmp_path / "a.png", pixels)
    reference = load_photo(plan(path, (320, 240), 1, lens))
    wanted = plan(path, (320, 240), factor, lens)
    photo = load_photo(wanted)
    full = plan(path, (320, 240), 1, lens)
    left, top = wanted.view.x0 - full.view.x0, wanted.view.y0 - full.view.y0
    cut = reference.rgb[top : top + wanted.view.height, left : left + wanted.view.width].float()
    expected = cut.reshape(wanted.size[1], factor, wanted.size[0], factor, 3).mean(dim=(1, 3))
    error = (photo.rgb.float() - expected).abs()
    assert error.mean() < 1
    assert error.max() < 8
    assert (photo.alpha is not None) == alpha


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [("L", 90, (90, 90, 90)), ("CMYK", (0, 255, 0, 0), (255, 0, 255)), ("I;16", 65535, (255, 255, 255))],
)
def test_other_modes_become_rgb(tmp_path, mode, value, expected):
    Image.new(mode, (4, 3), value).save(tmp_path / "a.tif")
    assert decode_image(tmp_path / "a.tif").mode == "RGB"
    assert decode_image(tmp_path / "a.tif").getpixel((1, 1)) == pytest.approx(expected, abs=1)


def test_a_palette_with_a_transparent_color_has_alpha(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putpixel((1, 1), 1)
    image.save(tmp_path / "a.png", transparency=0)
    assert read_image_header(tmp_path / "a.png").has_alpha
    decoded = decode_image(tmp_path / "a.png")
    assert decoded.getpixel((0, 0))[3] == 0
    assert decoded.getpixel((1, 1)) == (200, 100, 0, 255)


def test_orientation_is_read_and_turned_only_on_request(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(4, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image_header(tmp_path / "a.jpg").orientation == 6
    assert decode_image(tmp_path / "a.jpg").size == (8, 4)
    assert decode_image(tmp_path / "a.jpg", is_turned=True).size == (4, 8)


def test_a_mask_keeps_white_and_drops_mixed_pixels(tmp_path):
    mask = np.full((8, 8), 255, np.uint8)
    mask[:, :3] = 0
    path, mask_path = save(tmp_path / "a.png", noise(8, 8)), save(tmp_path / "m.png", mask)
    photo = load_photo(plan(path, (8, 8), 2, mask=mask_path))
    assert photo.mask[0].tolist() == [0, 0, 255, 255]


def test_a_mask_of_another_size_is_fitted(tmp_path):
    mask = np.array([[0, 255]], np.uint8)
    path, mask_path = save(tmp_path / "a.png", noise(8, 8)), save(tmp_path / "m.png", mask)
    photo = load_photo(plan(path, (8, 8), mask=mask_path))
    assert photo.mask[0].tolist() == [0] * 4 + [255] * 4


def test_a_mask_follows_the_lens(tmp_path):
    lens = Lens(radial=(-0.15,))
    mask = np.full((120, 160), 255, np.uint8)
    mask[60:] = 0
    path, mask_path = save(tmp_path / "a.png", noise(120, 160)), save(tmp_path / "m.png", mask)
    wanted = plan(path, (160, 120), 1, lens, mask=mask_path)
    photo = load_photo(wanted)
    row = 60 - wanted.view.y0
    assert photo.mask[: row - 1].min() == 255
    assert photo.mask[row + 1 :].max() == 0


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_photo_cut_anywhere_is_a_capture_error(tmp_path, suffix):
    whole = save(tmp_path / f"a{suffix}", noise(8, 8)).read_bytes()
    path = tmp_path / f"b{suffix}"
    # PNG has two checksums and an end mark after the last pixel, 20 bytes that are not missed.
    tail = 2 if suffix == ".jpg" else 20
    for size in range(len(whole) - tail):
        path.write_bytes(whole[:size])
        with pytest.raises(CaptureError, match=rf"b{suffix}: .*Replace or remove this photo"):
            decode_image(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"a\.jpg: the file is empty \(0 bytes\)\. Replace or remove"),
        (b"not an image at all", r"a\.jpg: is no image of a known format"),
    ],
)
def test_no_images_are_told(tmp_path, data, message):
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(CaptureError, match=message):
        read_image_header(tmp_path / "a.jpg")
    with pytest.raises(CaptureError, match="no such photo"):
        decode_image(tmp_path / "b.jpg")


def test_an_absurd_size_is_refused_before_memory_is_taken(tmp_path):
    data = bytearray(save(tmp_path / "a.png", noise(2, 2)).read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(bytes(data))
    with pytest.raises(CaptureError, match=r"too large|at most"):
        read_image_header(tmp_path / "a.png")


def test_a_photo_that_changed_on_disk_is_told(tmp_path):
    path = save(tmp_path / "a.png", noise(8, 8))
    wanted = plan(path, (8, 8))
    save(path, noise(4, 4))
    with pytest.raises(CaptureError, match="expected 8x8 pixels, got 4x4"):
        load_photo(wanted)


class Counter:
    """Photos of 300 bytes, counted as they are read."""

    def __init__(self):
        self.reads = []
        self.threads = set()

    def __call__(self, i):
        self.reads.append(i)
        self.threads.add(threading.current_thread().name)
        if i == 13:
            raise CaptureError("13.jpg", "damaged")
        return Photo(torch.full((10, 10, 3), i, dtype=torch.uint8))


def test_the_cache_reads_each_photo_once_while_it_fits():
    counter = Counter()
    cache = PhotoCache(counter, 1000)
    assert [int(cache.load(i).rgb[0, 0, 0]) for i in (0, 1, 0, 1, 2, 0)] == [0, 1, 0, 1, 2, 0]
    assert counter.reads == [0, 1, 2]


def test_the_cache_drops_what_was_not_used_longest_and_stays_in_bounds():
    counter = Counter()
    cache = PhotoCache(counter, 700)
    for i in (0, 1, 0, 2):
        cache.load(i)
        assert cache.size_bytes <= 700
    cache.load(0)
    cache.load(1)
    assert counter.reads == [0, 1, 2, 1]


def test_a_photo_larger_than_the_cache_is_handed_out_and_not_kept():
    counter = Counter()
    cache = PhotoCache(counter, 100)
    assert photo_bytes(cache.load(5)) == 300
    assert cache.size_bytes == 0


def test_prefetch_reads_in_another_thread_and_only_once():
    counter = Counter()
    cache = PhotoCache(counter, 10_000)
    cache.prefetch([3, 4, 3])
    cache.prefetch([4])
    assert [int(cache.load(i).rgb[0, 0, 0]) for i in (3, 4)] == [3, 4]
    assert sorted(counter.reads) == [3, 4]


def test_errors_met_ahead_come_with_load():
    cache = PhotoCache(Counter(), 10_000)
    cache.prefetch([13])
    for _ in range(2):
        with pytest.raises(CaptureError, match="damaged"):
            cache.load(13)


def test_many_threads_read_each_photo_at_most_a_few_times():
    counter = Counter()
    cache = PhotoCache(counter, 10_000)
    wrong = []

    def work():
        for i in range(10):
            cache.prefetch([(i + 1) % 10])
            if int(cache.load(i).rgb[0, 0, 0]) != i:
                wrong.append(i)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.size_bytes == 3000
