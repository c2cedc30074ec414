"""Splat and point PLY: exact round trips, foreign layouts, hostile files."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from scene3d.core.errors import FormatError, OutputError
from scene3d.core.gaussians import Gaussians
from scene3d.core.scene import Scene, SceneInfo
from scene3d.io.compressed_ply import read_compressed_ply
from scene3d.io.ply import is_gaussian_ply, read_ply, read_points_ply, write_ply, write_points_ply
from scene3d.io.ply_table import read_header
from scene3d.io.registry import read_scene, write_scene

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NEEDED = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
NEEDED += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]


def random_gaussians(n, sh_degree, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(n, 3), (n, 4), (n, 3), (n,), (n, 1, 3), (n, (sh_degree + 1) ** 2 - 1, 3)]
    return Gaussians(*(torch.randn(shape, generator=generator) for shape in shapes))


def assert_same(a, b):
    for name, value in a.params().items():
        assert torch.equal(value, b.params()[name]), name


def header(names, count, form="binary_little_endian", kind="float"):
    lines = ["ply", f"format {form} 1.0", f"element vertex {count}", *(f"property {kind} {n}" for n in names)]
    return ("\n".join([*lines, "end_header"]) + "\n").encode()


@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
@pytest.mark.parametrize("n", [0, 1, 70_000])
def test_a_round_trip_keeps_every_bit(tmp_path, sh_degree, n):
    if n > 1 and sh_degree not in (0, 3):
        n = 300
    scene = Scene(random_gaussians(n, sh_degree), SceneInfo(True, (0.0, -1.0, 0.25), "fox", "scene3d 0.1.0", ("a b",)))
    write_ply(scene, tmp_path / "a.ply")
    back = read_ply(tmp_path / "a.ply")
    assert_same(scene.payload, back.payload)
    assert back.info == scene.info
    write_ply(back, tmp_path / "b.ply")
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


def test_the_layout_is_the_one_others_read(tmp_path):
    gaussians = random_gaussians(2, 1)
    write_ply(Scene(gaussians), tmp_path / "a.ply")
    names = [name for name, _ in read_header(tmp_path / "a.ply").elements[0].properties]
    rest = [f"f_rest_{i}" for i in range(9)]
    assert names == ["x", "y", "z", "nx", "ny", "nz", *NEEDED[3:6], *rest, *NEEDED[6:]]
    row = np.frombuffer((tmp_path / "a.ply").read_bytes()[-4 * len(names) :], "<f4")
    # Channel-major: the three coefficients of red come first.
    assert torch.equal(torch.tensor(row[9:12]), gaussians.shN[1, :, 0])
    assert torch.equal(torch.tensor(row[-4:]), gaussians.quats[1])


@pytest.mark.parametrize(("antialiased", "word"), [(True, "mip"), (False, "default")])
def test_the_render_mode_is_tagged_as_others_tag_it(tmp_path, antialiased, word):
    write_ply(Scene(random_gaussians(1, 0), SceneInfo(antialiased)), tmp_path / "a.ply")
    assert f"SplatRenderMode: {word}" in read_header(tmp_path / "a.ply").comments


def test_a_line_break_in_a_note_cannot_add_header_lines(tmp_path):
    info = SceneInfo(source="a\nelement vertex 7", notes=("x\r\nend_header",))
    write_ply(Scene(random_gaussians(2, 0), info), tmp_path / "a.ply")
    back = read_ply(tmp_path / "a.ply")
    assert len(back.payload) == 2
    assert back.info.source == "a element vertex 7"


def test_ascii_big_endian_and_double_files_read_alike(tmp_path):
    table = np.random.default_rng(0).normal(size=(5, len(NEEDED))).astype(np.float32)
    text = "\n".join(" ".join(repr(float(v)) for v in row) for row in table) + "\n"
    (tmp_path / "a.ply").write_bytes(header(NEEDED, 5, "ascii") + text.encode())
    (tmp_path / "b.ply").write_bytes(header(NEEDED, 5, "binary_big_endian") + table.astype(">f4").tobytes())
    (tmp_path / "c.ply").write_bytes(header(NEEDED, 5, kind="double") + table.astype("<f8").tobytes())
    (tmp_path / "d.ply").write_bytes(header(NEEDED, 5).replace(b"\n", b"\r\n") + table.tobytes())
    first = read_ply(tmp_path / "a.ply").payload
    assert torch.equal(first.means, torch.from_numpy(table[:, :3]))
    for name in "bcd":
        assert_same(first, read_ply(tmp_path / f"{name}.ply").payload)


def test_extra_properties_and_another_order_do_no_harm(tmp_path):
    names = ["label", *NEEDED[::-1], "extra"]
    table = np.arange(2 * len(names), dtype="<f4").reshape(2, -1)
    (tmp_path / "a.ply").write_bytes(header(names, 2) + table.tobytes())
    gaussians = read_ply(tmp_path / "a.ply").payload
    assert gaussians.means[0].tolist() == [table[0, names.index(n)] for n in "xyz"]
    assert gaussians.quats.norm(dim=1).min() > 1  # kept as they are, not normalised


def test_rows_with_nan_are_left_out_and_counted(tmp_path, caplog):
    gaussians = random_gaussians(4, 0)
    gaussians.means[1, 2] = float("nan")
    gaussians.log_scales[2, 0] = float("inf")
    write_ply(Scene(gaussians), tmp_path / "a.ply")
    assert torch.equal(read_ply(tmp_path / "a.ply").payload.means, gaussians.means[[0, 3]])
    assert "left out 2 of 4 Gaussians" in caplog.text


def test_infinities_that_mean_opaque_and_flat_are_kept(tmp_path):
    gaussians = random_gaussians(2, 0)
    gaussians.opacity_logits[:] = torch.tensor([float("inf"), -float("inf")])
    gaussians.log_scales[0, 1] = -float("inf")
    write_ply(Scene(gaussians), tmp_path / "a.ply")
    back = read_ply(tmp_path / "a.ply").payload
    assert back.is_finite().all()
    assert back.opacities.tolist() == pytest.approx([1, 0], abs=1e-6)
    assert back.scales[0, 1] < 1e-8


def test_truncation_at_every_byte_is_a_format_error(tmp_path):
    write_ply(Scene(random_gaussians(2, 0), SceneInfo(made_by="x")), tmp_path / "a.ply")
    whole = (tmp_path / "a.ply").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "b.ply").write_bytes(whole[:size])
        with pytest.raises(FormatError):
            read_ply(tmp_path / "b.ply")


def test_truncation_of_ascii_within_the_rows_is_a_format_error(tmp_path):
    rows = b"\n".join(b" ".join([b"0.25"] * len(NEEDED)) for _ in range(2))
    whole = header(NEEDED, 2, "ascii") + rows
    for size in range(len(whole) - 5):
        (tmp_path / "b.ply").write_bytes(whole[:size])
        with pytest.raises(FormatError):
            read_ply(tmp_path / "b.ply")


@pytest.mark.parametrize("count", [3, 10**6, 10**15, 10**18 - 1])
@pytest.mark.parametrize("form", ["binary_little_endian", "ascii"])
def test_a_count_beyond_the_file_takes_no_memory(tmp_path, count, form):
    (tmp_path / "a.ply").write_bytes(header(NEEDED, count, form) + b"\0" * 60)
    with pytest.raises(FormatError, match="vertex"):
        read_ply(tmp_path / "a.ply")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"ply\n", b"png\n", "starts with the line 'ply'"),
        (b"vertex 2", b"vertex -2", "expected a number of rows, got '-2'"),
        (b"vertex 2", b"vertex " + b"9" * 5000, "number of rows|does not end"),
        (b"element vertex", b"element point", "expected an element 'vertex', got elements: point"),
        (b"property float x", b"property quad x", "unknown property 'quad x'"),
        (b"property float y", b"property float x", "'x' appears twice"),
        (b"property float opacity", b"property list uchar int opacity", "list properties"),
        (b"property float opacity", b"property float other", "opacity, which are missing. It looks like a point cloud"),
        (b"property float opacity", b"property float f_rest_0", "opacity"),
        (b"property float y", b"propperty float y", "unknown header line"),
        (b"format binary_little_endian 1.0\n", b"", "no 'format' line"),
        (b"format binary_little_endian", b"format binary_middle_endian", "unknown header line"),
    ],
)
def test_wrong_headers_say_what_is_wrong(tmp_path, old, new, message):
    whole = header(NEEDED, 2) + b"\0" * (2 * 4 * len(NEEDED))
    assert old in whole
    (tmp_path / "a.ply").write_bytes(whole.replace(old, new, 1))
    with pytest.raises(FormatError, match=message):
        read_ply(tmp_path / "a.ply")


def test_a_strange_number_of_coefficients_is_told(tmp_path):
    names = [*NEEDED, *(f"f_rest_{i}" for i in range(10))]
    (tmp_path / "a.ply").write_bytes(header(names, 1) + b"\0" * 4 * len(names))
    with pytest.raises(FormatError, match=r"0, 9, 24, 45 or 72 properties .* got 10"):
        read_ply(tmp_path / "a.ply")


def test_an_endless_line_is_not_read_to_its_end(tmp_path):
    (tmp_path / "a.ply").write_bytes(b"ply\ncomment " + b"x" * 100_000)
    with pytest.raises(FormatError, match="does not end with 'end_header'"):
        read_ply(tmp_path / "a.ply")


def test_random_damage_never_escapes_as_another_exception(tmp_path):
    write_ply(Scene(random_gaussians(3, 1)), tmp_path / "a.ply")
    whole = (tmp_path / "a.ply").read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        for position in generator.integers(0, len(whole), 4):
            damaged[position] = generator.integers(256)
        (tmp_path / "b.ply").write_bytes(bytes(damaged))
        with suppress(FormatError):
            assert read_ply(tmp_path / "b.ply").payload.is_finite().all()


def test_points_round_trip_with_their_colors(tmp_path):
    points, colors = torch.randn(7, 3), torch.randint(0, 256, (7, 3), dtype=torch.uint8)
    write_points_ply(points, colors, tmp_path / "p.ply")
    back_points, back_colors = read_points_ply(tmp_path / "p.ply")
    assert torch.equal(points, back_points)
    assert torch.equal(colors, back_colors)
    assert not is_gaussian_ply(tmp_path / "p.ply")


def test_points_of_a_splat_file_take_its_base_color(tmp_path):
    gaussians = random_gaussians(3, 0)
    gaussians.sh0[:] = 0
    write_ply(Scene(gaussians), tmp_path / "a.ply")
    points, colors = read_points_ply(tmp_path / "a.ply")
    assert torch.equal(points, gaussians.means)
    assert set(colors.flatten().tolist()) == {128}
    assert is_gaussian_ply(tmp_path / "a.ply")


def test_points_that_are_not_finite_are_left_out(tmp_path):
    points = torch.tensor([[0.0, 1, 2], [float("nan"), 0, 0], [float("inf"), 0, 0]])
    write_points_ply(points, torch.zeros(3, 3, dtype=torch.uint8), tmp_path / "p.ply")
    assert read_points_ply(tmp_path / "p.ply")[0].tolist() == [[0, 1, 2]]


def test_missing_and_unknown_scene_files_are_told(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        read_scene(tmp_path / "a.ply")
    (tmp_path / "b.ply").mkdir()
    with pytest.raises(FormatError, match=r"expected a file, got a folder"):
        read_scene(tmp_path / "b.ply")
    with pytest.raises(FormatError, match=r"unknown scene format '.obj'.*\.ply"):
        read_scene(tmp_path / "a.obj")
    with pytest.raises(OutputError, match=r"unknown scene format '.obj'"):
        write_scene(Scene(random_gaussians(1, 0)), tmp_path / "a.obj")


def compressed_file(path, quats, n_sh=0):
    """One chunk over the unit cube, quaternions packed by hand, everything else at the middle."""
    names = [f"{s}_{a}" for s in ("min", "max") for a in "xyz"]
    names += [f"{s}_scale_{a}" for s in ("min", "max") for a in "xyz"]
    packed = ["packed_position", "packed_rotation", "packed_scale", "packed_color"]
    lines = ["ply", "format binary_little_endian 1.0", "element chunk 1", *(f"property float {n}" for n in names)]
    lines += [f"element vertex {len(quats)}", *(f"property uint {n}" for n in packed)]
    if n_sh:
        lines += [f"element sh {len(quats)}", *(f"property uchar f_rest_{i}" for i in range(n_sh))]
    rows = np.zeros((len(quats), 4), "<u4")
    for i, quat in enumerate(quats):
        largest = int(np.abs(quat).argmax())
        small = np.delete(quat * np.sign(quat[largest]), largest)
        a, b, c = np.round((small / np.sqrt(2) + 0.5) * 1023).astype(int)
        rows[i] = (2047 << 21) + (1023 << 11) + 0, (largest << 30) + (a << 20) + (b << 10) + c, 0, 0xFF008080
    chunk = np.array([0, 0, 0, 1, 2, 3, -5, -5, -5, -1, -1, -1], "<f4")
    body = chunk.tobytes() + rows.tobytes() + bytes([0, 255, 128] * (len(quats) * n_sh // 3))
    path.write_bytes(("\n".join([*lines, "end_header"]) + "\n").encode() + body)


def test_compressed_files_unpack_to_what_was_packed(tmp_path):
    quats = np.array([[1.0, 0.2, -0.3, 0.1], [0.1, -0.9, 0.2, 0.3], [0, 0.1, 1, 0.5], [0.3, 0.2, 0.1, -2]])
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    compressed_file(tmp_path / "a.compressed.ply", quats, n_sh=9)
    gaussians = read_scene(tmp_path / "a.compressed.ply").payload
    cosines = np.abs((gaussians.quats.numpy() * quats).sum(axis=1))
    assert cosines.min() > 1 - 1e-5
    assert gaussians.means.tolist() == [[1, 2, 0]] * 4
    assert gaussians.log_scales.tolist() == [[-5, -5, -5]] * 4
    assert gaussians.opacities.tolist() == pytest.approx([128 / 255] * 4, abs=1e-6)
    # Bytes 0 255 128 repeat along the channel-major row: each channel holds -4, 4 and about 0.
    assert gaussians.shN[0, :, 0].tolist() == pytest.approx([-4, 4, 8 * (128.5 / 256 - 0.5)])
    assert gaussians.shN[3, 1].tolist() == [4, 4, 4]


def test_compressed_files_cut_anywhere_are_format_errors(tmp_path):
    compressed_file(tmp_path / "a.compressed.ply", np.eye(4)[:2], n_sh=9)
    whole = (tmp_path / "a.compressed.ply").read_bytes()
    for size in range(0, len(whole)):
        (tmp_path / "b.compressed.ply").write_bytes(whole[:size])
        with pytest.raises(FormatError):
            read_compressed_ply(tmp_path / "b.compressed.ply")


def test_a_plain_file_named_compressed_is_told(tmp_path):
    write_ply(Scene(random_gaussians(1, 0)), tmp_path / "a.ply")
    (tmp_path / "a.ply").rename(tmp_path / "a.compressed.ply")
    with pytest.raises(FormatError, match="expected an element 'chunk'"):
        read_scene(tmp_path / "a.compressed.ply")


def test_trained_files_of_others_read(caplog):
    if not DATA.is_dir():
        pytest.skip(f"no captures at {DATA}")
    fox = read_scene(DATA / "splats" / "fox.ply")
    assert (len(fox.payload), fox.payload.sh_degree) == (31_783, 3)
    assert fox.info.made_by == "opensplat at iteration 2000"
    guitar = read_scene(DATA / "splats" / "guitar.compressed.ply")
    assert (len(guitar.payload), guitar.payload.sh_degree) == (90_854, 0)
    assert guitar.payload.quats.norm(dim=1).sub(1).abs().max() < 1e-5
    assert caplog.text == ""


def rewritten(tmp_path, gaussians, n_rest, names=None, extra=()):
    """A PLY of the columns of `gaussians`, in the order of `names`, with n_rest numbered coefficients."""
    columns = {f"f_rest_{i}": np.full(len(gaussians), float(i)) for i in range(n_rest)}
    for prefix, values in (("", gaussians.means), ("f_dc_", gaussians.sh0[:, 0]), ("scale_", gaussians.log_scales)):
        columns |= {f"{prefix}{'xyz'[i] if not prefix else i}": values[:, i].numpy() for i in range(3)}
    columns |= {f"rot_{i}": gaussians.quats[:, i].numpy() for i in range(4)}
    columns |= {"opacity": gaussians.opacity_logits.numpy(), **{name: np.zeros(len(gaussians)) for name in extra}}
    names = names or sorted(columns)
    rows = np.zeros(len(gaussians), [(name, "<f4") for name in names])
    for name in names:
        rows[name] = columns[name]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [*(f"property float {name}" for name in names), "end_header", ""]
    (tmp_path / "a.ply").write_bytes("\n".join(header).encode() + rows.tobytes())
    return read_scene(tmp_path / "a.ply").payload


def test_any_order_of_columns_and_columns_more_are_read(tmp_path):
    gaussians = random_gaussians(5, 0).to(dtype=torch.float32)
    back = rewritten(tmp_path, gaussians, 9, extra=("confidence", "nx"))
    assert torch.equal(back.means, gaussians.means)
    assert torch.equal(back.quats, gaussians.quats)
    assert back.shN[0].tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_degree_4_is_cut_to_3_and_told(tmp_path, caplog):
    back = rewritten(tmp_path, random_gaussians(2, 0).to(dtype=torch.float32), 72)
    assert back.sh_degree == 3
    assert back.shN[0, 14].tolist() == [14, 24 + 14, 48 + 14]
    assert "left out spherical harmonics of degree 4" in caplog.text


def test_flat_gaussians_without_a_third_scale_are_read(tmp_path):
    gaussians = random_gaussians(3, 0).to(dtype=torch.float32)
    names = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1"]
    back = rewritten(tmp_path, gaussians, 0, [*names, "rot_0", "rot_1", "rot_2", "rot_3"])
    assert torch.equal(back.log_scales[:, :2], gaussians.log_scales[:, :2])
    assert float(back.scales[:, 2].max()) < 1e-8


def test_an_absurd_word_in_text_takes_no_memory(tmp_path: Path) -> None:
    head = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    (tmp_path / "a.ply").write_text(f"{head}1 2 3\n4 5 {'6' * 100}\n")
    with pytest.raises(FormatError, match="holds something that is not a number"):
        read_points_ply(tmp_path / "a.ply")


def test_endless_properties_are_refused(tmp_path: Path) -> None:
    lines = "".join(f"property float p{i}\n" for i in range(1001))
    (tmp_path / "a.ply").write_text(f"ply\nformat ascii 1.0\nelement vertex 0\n{lines}end_header\n")
    with pytest.raises(FormatError, match="has more than 1000 properties"):
        read_points_ply(tmp_path / "a.ply")
