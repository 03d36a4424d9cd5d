"""Why the safetensors library does not take a file, in words that name the cause."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

from smolship.runtime.errors import InputError
from smolship.runtime.looks import SAFETENSORS, what_is

HEADER_LIMIT = 100_000_000  # bytes, as in the library


def bits(dtype: str) -> int:
    """Bits of a number of that type: its name says it ("F8_E4M3", "C64"), but for "BOOL"."""
    return 8 if dtype == "BOOL" else int(re.findall(r"\d+", dtype)[0])


def invalid(path: Path, reason: str) -> InputError:
    """The refusal of that file: what it is instead, how much of it is missing, what is wrong in it, or else `reason`,
    the library's own words."""
    found = what_is(path)
    if found and found != SAFETENSORS:
        return InputError(
            "not a safetensors file", got=f"{found.what} in {path}", expected="the model's weights", todo=found.todo
        )
    size, todo = path.stat().st_size, "fetch it again: it was changed after it was written, or badly written"
    length, entries, odd = _lenient(path)
    end = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    got = reason.removeprefix("Error while deserializing header: ")
    if length > HEADER_LIMIT:
        got = f"a header of {length:,} bytes"
    elif end > size:
        got, todo = f"{size:,} of {end:,} bytes", "fetch it again: its download, or its copying, was broken off"
    elif odd:
        got = odd
    elif "JSON" not in got:
        long = f"{size:,} bytes, where the last tensor ends at {end:,}," if entries and size > end else ""
        got = _fault(entries) or long or got
    return InputError(
        "not a valid safetensors file",
        got=f"{got} in {path}",
        todo=todo,
        expected="a header, then its tensors, end to end to the end of the file",
    )


def _lenient(path: Path) -> tuple[int, dict[str, dict[str, Any]], str]:
    """The length of the header as the file gives it; its entries, where at least their numbers can be read; and what is
    odd in it: names that come twice, metadata that is no text."""
    odd: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        odd.extend(f"{name!r} twice" for name, times in Counter(name for name, _ in items).items() if times > 1)
        return dict(items)

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(min(length, HEADER_LIMIT))
    try:
        entries = json.loads(text.decode(), object_pairs_hook=pairs)
        metadata = entries.pop("__metadata__", None) or {}
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            odd.append("__metadata__ with other values than text")
        for entry in entries.values():
            begin, end = entry["data_offsets"]
            if any(type(n) is not int or not 0 <= n < 1 << 60 for n in (begin, end, *entry["shape"])):
                raise ValueError
            bits(entry["dtype"])
    except (ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError):
        entries = {}
    return length, entries, ", ".join(odd[:3])


def _fault(entries: dict[str, dict[str, Any]]) -> str:
    """The first tensor that does not lie where the one before it ends, or has too many bytes or too few."""
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        need = math.prod(entry["shape"]) * bits(entry["dtype"]) // 8
        if begin != at:
            return f"tensor {name!r} from byte {begin:,} on, where {at:,} comes next,"
        if end - begin != need:
            return f"{end - begin:,} bytes for tensor {name!r}, which needs {need:,},"
        at = end
    return ""
