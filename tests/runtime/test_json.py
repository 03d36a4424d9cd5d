"""JSON as the readers of these formats take it: Python's json on UTF-8 text for all but tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smolship.runtime.errors import InputError
from smolship.runtime.files import parse_json, read_json

REFUSED = {
    "UTF-8's mark": b'\xef\xbb\xbf{"k": 1}',
    "UTF-16, little end first": '{"k": 1}'.encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + '{"k": 1}'.encode("utf-16-be"),
    "UTF-16 without a mark": '{"k": 1}'.encode("utf-16-le"),
    "UTF-32": '{"k": 1}'.encode("utf-32"),
    "Latin-1": '{"é": 1}'.encode("latin-1"),
    "something after it": b'{"k": 1}]',
    "a NUL after it": b'{"k": 1}\0',
    "a comma too many": b'{"k": 1,}',
    "a comment": b'{"k": 1} # one',
    "single quotes": b"{'k': 1}",
    "a line break in a string": b'{"k": "a\nb"}',
    "a number of 6,000 digits": b'{"k": ' + b"7" * 6000 + b"}",
    "20,000 lists": b'{"k": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "nothing": b"",
    "half": b'{"k": ',
}
TAKEN: dict[str, tuple[bytes, Any]] = {
    "NaN": (b'{"k": NaN}', "nan"),
    "an infinity": (b'{"k": -Infinity}', "-inf"),
    "a number beyond floats": (b'{"k": 1e999}', "inf"),
    "a key twice: the last counts": (b'{"k": 1, "k": 2}', "2"),
    "a long integer": (b'{"k": ' + b"8" * 90 + b"}", "8" * 90),
    "half a surrogate pair": (b'{"k": "\\udc80"}', "\udc80"),
    "NUL in a string": (b'{"k": "\\u0000"}', "\0"),
    "UTF-8": ('{"k": "日"}'.encode(), "日"),
    "white space around it": (b'\r\n\t {"k": 3}\n\n', "3"),
    "150 lists": (b'{"k": ' + b"[" * 150 + b"]" * 150 + b"}", "[" * 150 + "]" * 150),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_python_refuses_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(REFUSED[name])
    with pytest.raises((ValueError, RecursionError)):
        json.loads(path.read_text(encoding="utf-8"))
    with pytest.raises(InputError, match="the config"):
        read_json(path, "the config")


@pytest.mark.parametrize("name", TAKEN)
def test_what_python_takes_is_taken(name: str, tmp_path: Path) -> None:
    raw, said = TAKEN[name]
    (tmp_path / "f").write_bytes(raw)
    theirs = json.loads((tmp_path / "f").read_text(encoding="utf-8"))
    assert str(parse_json(raw, "the config", "f")["k"]) == str(theirs["k"]) == said


@pytest.mark.parametrize("name", [name for name in REFUSED if name.startswith("UTF") and "without" not in name])
def test_a_byte_order_mark_comes_with_its_cure(name: str) -> None:
    with pytest.raises(InputError, match="byte order mark of UTF-") as caught:
        parse_json(REFUSED[name], "the index", "index.json")
    assert "to do:    save it as UTF-8 without a byte order mark" in str(caught.value)


def test_a_page_with_a_mark_has_a_worse_fault() -> None:
    with pytest.raises(InputError, match="not valid JSON"):
        parse_json(b"\xef\xbb\xbf\r\n<!DOCTYPE html>", "the config", "config.json")
