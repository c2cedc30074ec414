"""PLY as a container: header and rows of one element, ascii or binary of either byte order, any scalar properties.

Rows come out as columns by name. Files are untrusted: counts are checked against the size of the file before
memory is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import recfunctions

from scene3d.core.errors import FormatError
from scene3d.io.binary import TRUNCATED, unreadable

BYTE_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
SCALARS = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float32": "f4", "float64": "f8"},
}
MAX_LINE_BYTES = 4096
MAX_HEADER_LINES = 10_000
MAX_PROPERTIES = 1000
# Longer words are no numbers; all would take as much memory as the longest.
MAX_WORD_BYTES = 64


@dataclass(frozen=True)
class Element:
    """One element of the header.

    Attributes:
        name: As in the file.
        count: Number of rows the header promises.
        properties: Name and numpy type of each scalar property.
        has_lists: Rows differ in length.
    """

    name: str
    count: int
    properties: tuple[tuple[str, str], ...]
    has_lists: bool


@dataclass(frozen=True)
class PlyHeader:
    """What stands before the rows.

    Attributes:
        byte_order: "<", ">" or "" for ascii.
        elements: In file order.
        comments: Without the word `comment`.
        data_offset: Byte at which the rows start.
    """

    byte_order: str
    elements: tuple[Element, ...]
    comments: tuple[str, ...]
    data_offset: int


@dataclass(frozen=True)
class PlyTable:
    """The rows of one element.

    Attributes:
        element: Its header.
        rows: Structured, one field a property. [count]
    """

    element: Element
    rows: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.element.properties)

    def columns(self, names: Sequence[str], dtype: str = "float32") -> np.ndarray:
        """The properties `names` side by side, contiguous. [count, len(names)]"""
        if not names:
            return np.zeros((len(self.rows), 0), dtype)
        codes = {code for _, code in self.element.properties}
        if len(codes) == 1 and len(self.rows):
            # Rows of one type are a matrix: columns are cut out of it many times faster than field by field.
            matrix = self.rows.view(self.rows.dtype[0]).reshape(len(self.rows), -1)
            places = [self.names.index(name) for name in names]
            is_run = places == list(range(places[0], places[0] + len(places)))
            return _converted(matrix[:, places[0] : places[0] + len(places)] if is_run else matrix[:, places], dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            values = recfunctions.structured_to_unstructured(self.rows[list(names)], np.dtype(dtype))
        return _converted(values, dtype)


def read_header(path: Path) -> PlyHeader:
    """Read the header only.

    Raises:
        FormatError: the file cannot be read or does not start with a PLY header.
    """
    try:
        with open(path, "rb") as stream:
            return _parse_header(path, stream)
    except OSError as error:
        raise unreadable(path, error) from error


def read_table(path: Path, header: PlyHeader, name: str) -> PlyTable:
    """Read the rows of element `name`.

    Raises:
        FormatError: there is no such element, the file is too short for it, or rows before or in it are lists.
    """
    position = next((i for i, element in enumerate(header.elements) if element.name == name), None)
    if position is None:
        found = ", ".join(element.name for element in header.elements) or "none"
        raise FormatError(path, f"expected an element {name!r}, got elements: {found}")
    element, before = header.elements[position], header.elements[:position]
    if element.has_lists or (header.byte_order and any(other.has_lists for other in before)):
        problem = f"list properties in or before element {name!r} are not supported"
        raise FormatError(path, problem, remedy="Export it again with plain numbers only.")
    try:
        read_rows = _read_binary if header.byte_order else _read_ascii
        return PlyTable(element, read_rows(path, header, element, before))
    except OSError as error:
        raise unreadable(path, error) from error


def _converted(values: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # A double may overflow a float: readers drop such rows.
        return np.array(values, dtype, order="C")


def _parse_header(path: Path, stream: BinaryIO) -> PlyHeader:
    if stream.readline(MAX_LINE_BYTES).strip() != b"ply":
        raise FormatError(path, "expected a PLY file, which starts with the line 'ply'", 0)
    byte_order: str | None = None
    comments: list[str] = []
    elements: list[Element] = []
    for _ in range(MAX_HEADER_LINES):
        start = stream.tell()
        raw = stream.readline(MAX_LINE_BYTES)
        if not raw.endswith(b"\n"):
            raise FormatError(path, "the header does not end with 'end_header'", start, TRUNCATED)
        line = raw.decode("utf-8", errors="replace").strip("\r\n")
        words = line.split()
        if words[:1] == ["end_header"]:
            if byte_order is None:
                raise FormatError(path, "the header has no 'format' line", start)
            return PlyHeader(byte_order, tuple(elements), tuple(comments), stream.tell())
        if words[:1] == ["comment"]:
            comments.append(line.partition("comment")[2].strip())
        elif words[:1] == ["format"] and len(words) == 3 and words[1] in BYTE_ORDERS:
            byte_order = BYTE_ORDERS[words[1]]
        elif words[:1] == ["element"] and len(words) == 3:
            elements.append(Element(words[1], _parse_count(path, words[2], start), (), False))
        elif words[:1] == ["property"] and elements:
            elements[-1] = _add_property(path, elements[-1], words, start)
        elif words and words[0] != "obj_info":
            raise FormatError(path, f"unknown header line {line[:60]!r}", start)
    raise FormatError(path, f"the header has more than {MAX_HEADER_LINES} lines", stream.tell())


def _parse_count(path: Path, word: str, offset: int) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 18):
        raise FormatError(path, f"expected a number of rows, got {word[:40]!r}", offset)
    return int(word)


def _add_property(path: Path, element: Element, words: list[str], offset: int) -> Element:
    if len(words) == 5 and words[1] == "list":
        return Element(element.name, element.count, element.properties, True)
    if len(words) != 3 or words[1] not in SCALARS:
        raise FormatError(path, f"unknown property {' '.join(words[1:])[:60]!r}", offset)
    if len(element.properties) == MAX_PROPERTIES:
        problem = f"element {element.name[:60]!r} has more than {MAX_PROPERTIES} properties"
        raise FormatError(path, problem, offset)
    if any(name == words[2] for name, _ in element.properties):
        raise FormatError(path, f"property {words[2]!r} appears twice", offset)
    return Element(element.name, element.count, (*element.properties, (words[2], SCALARS[words[1]])), element.has_lists)


def _row_type(element: Element, byte_order: str) -> np.dtype:
    return np.dtype([(name, byte_order + code) for name, code in element.properties])


def _read_binary(path: Path, header: PlyHeader, element: Element, before: tuple[Element, ...]) -> np.ndarray:
    dtype = _row_type(element, header.byte_order)
    skipped = sum(_row_type(other, header.byte_order).itemsize * other.count for other in before)
    start = header.data_offset + skipped
    needed, size = dtype.itemsize * element.count, path.stat().st_size
    if start + needed > size:
        problem = f"ends within element {element.name!r}: {element.count} rows need {needed} bytes, got"
        raise FormatError(path, f"{problem} {max(size - start, 0)}", min(size, start), TRUNCATED)
    if needed == 0:
        return np.zeros(element.count if element.count * 8 <= size else 0, dtype)
    return np.fromfile(path, dtype, element.count, offset=start)


def _read_ascii(path: Path, header: PlyHeader, element: Element, before: tuple[Element, ...]) -> np.ndarray:
    lines = path.read_bytes()[header.data_offset :].split(b"\n")
    first = sum(other.count for other in before)
    lines = lines[first : first + element.count]
    words = b" ".join(lines).split()
    n_properties = len(element.properties)
    if len(words) != element.count * n_properties:
        problem = f"element {element.name!r}: expected {element.count} rows of {n_properties} numbers"
        raise FormatError(path, f"{problem}, got {len(words)} numbers in {len(lines)} lines", remedy=TRUNCATED)
    if max(map(len, words), default=0) > MAX_WORD_BYTES:
        raise FormatError(path, f"element {element.name!r} holds something that is not a number")
    try:
        values = np.array(words, dtype="S").astype(np.float64) if words else np.zeros(0)
    except ValueError as error:
        raise FormatError(path, f"element {element.name!r} holds something that is not a number") from error
    # Doubles hold every integer type of the format exactly.
    dtype = np.dtype([(name, "<f8") for name, _ in element.properties])
    return values.reshape(-1, n_properties).view(dtype)[:, 0] if n_properties else np.zeros(0, dtype)
