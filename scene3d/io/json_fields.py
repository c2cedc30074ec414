"""Fields of untrusted JSON: each is checked for its type and range as it is taken out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from scene3d.core.errors import FormatError
from scene3d.io.binary import TRUNCATED


class JsonObject:
    """An object of a JSON file; `where` is its place in messages."""

    def __init__(self, path: Path, where: str, data: Any) -> None:
        if not isinstance(data, dict):
            raise FormatError(path, f"{where}: expected an object, got {_kind(data)}")
        self.path, self.where, self.data = path, where, data

    def has(self, key: str) -> bool:
        return key in self.data

    def object(self, key: str) -> JsonObject:
        return JsonObject(self.path, f"{self.where}.{key}", self.data.get(key))

    def integer(self, key: str, low: int, high: int) -> int:
        """A whole number from low to high."""
        value = self.data.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.error(key, f"a whole number from {low} to {high}", value)
        return value

    def numbers(self, key: str, count: int) -> list[float]:
        """A list of `count` finite numbers."""
        value = self.data.get(key)
        if not isinstance(value, list) or len(value) != count or not all(is_finite_number(item) for item in value):
            raise self.error(key, f"{count} finite numbers", value)
        return [float(item) for item in value]

    def items(self, key: str, max_count: int = 10**6) -> list[Any]:
        """A list of at most `max_count` of anything."""
        value = self.data.get(key, [])
        if not isinstance(value, list) or len(value) > max_count:
            raise self.error(key, f"a list of at most {max_count}", value)
        return value

    def texts(self, key: str, count: int) -> list[str]:
        """A list of `count` texts."""
        value = self.data.get(key)
        if not isinstance(value, list) or len(value) != count or not all(isinstance(item, str) for item in value):
            raise self.error(key, f"{count} names", value)
        return value

    def text(self, key: str, default: str = "") -> str:
        value = self.data.get(key, default)
        if not isinstance(value, str):
            raise self.error(key, "a text", value)
        return value

    def error(self, key: str, expected: str, value: Any) -> FormatError:
        actual = f"{_kind(value)} {json.dumps(value)[:60]}" if key in self.data else "nothing"
        return FormatError(self.path, f"{self.where}.{key}: expected {expected}, got {actual}")


def parse_json(path: Path, where: str, data: bytes) -> JsonObject:
    """The object that JSON text holds.

    Raises:
        FormatError: the text is no JSON or no object.
    """
    try:
        return JsonObject(path, where, json.loads(data.decode("utf-8")))
    except (ValueError, RecursionError) as error:
        offset = error.pos if isinstance(error, json.JSONDecodeError) else None
        raise FormatError(path, f"{where} is no valid JSON: {error}", offset, TRUNCATED) from error


def is_finite_number(value: Any) -> bool:
    """Whether `value`, out of JSON, is a number that float32 can hold; JSON's whole numbers have no limit."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value) and abs(value) < 3e38
    except OverflowError:
        return False


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "truth value", int: "number", float: "number"}
    return names.get(type(value), "nothing")
