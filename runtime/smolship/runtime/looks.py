"""What a file really is, by its first bytes: the cause to name before "not valid" and "download it again".

What comes in place of a model's file is nearly always one of these: a pointer of git-lfs, a web page, a server's error
message, an empty or never-filled file, an archive, or another format under a wrong name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

HEAD = 512  # bytes that suffice, the mark of a tar archive at 257 included

FETCH = "fetch it with `hf download OWNER/NAME`"
UNPACK = "unpack it, and name the folder"
PICKLED = "load it with transformers where you trust it, and save_pretrained(FOLDER): a pickle can run any code"


class Look(NamedTuple):
    """What a file is, in words, and what to do about it."""

    what: str
    todo: str


LFS = Look("a git-lfs pointer, which only names the file", "run `git lfs pull` in that folder, or " + FETCH)
EMPTY = Look("an empty file", f"{FETCH}: what wrote this one ended before its first byte")
ZEROS = Look("nothing but zeros", f"{FETCH}: its room was reserved and never filled")
PAGE = Look("a web page", f"{FETCH}: the link that was followed leads to a page (a login, or /blob/ for /resolve/)")
ERROR = Look("a server's error message", f"{FETCH}; log in first where the model is private or gated (`hf auth login`)")
GGUF = Look("a GGUF file", "name that file itself as the model")
SAFETENSORS = Look("a safetensors file", "name the folder that holds it and config.json")

MAGIC: tuple[tuple[int, bytes, Look], ...] = (
    (0, b"version https://git-lfs", LFS),
    (0, b"GGUF", GGUF),
    (0, b"FUGG", Look("a GGUF file of a big-endian machine", "convert it anew on a little-endian one")),
    (0, b"lmgg", Look("a GGML file, from before GGUF", "convert the original checkpoint anew")),
    (0, b"fmgg", Look("a GGMF file, from before GGUF", "convert the original checkpoint anew")),
    (0, b"tjgg", Look("a GGJT file, from before GGUF", "convert the original checkpoint anew")),
    (0, b"algg", Look("a LoRA adapter of llama.cpp, from before GGUF", "merge the adapter, and export the result")),
    (4, b"ET12", Look("an ExecuTorch program", "export the checkpoint that it was made from")),
    (4, b"TFL3", Look("a TensorFlow Lite model", "export the checkpoint that it was made from")),
    (0, b"\x89HDF", Look("an HDF5 file, as Keras writes them", "save it from transformers as safetensors")),
    (0, b"PK\3\4", Look("a zip archive", UNPACK)),
    (0, b"\x1f\x8b", Look("a gzip archive", UNPACK)),
    (0, b"BZh", Look("a bzip2 archive", UNPACK)),
    (0, b"\xfd7zXZ", Look("an xz archive", UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", Look("a zstd archive", UNPACK)),
    (0, b"7z\xbc\xaf", Look("a 7z archive", UNPACK)),
    (257, b"ustar", Look("a tar archive", UNPACK)),
)
ERRORS = (
    rb"entry not found|not found|repository not found|invalid username or password|unauthorized|forbidden|"
    rb"access to (model|dataset)|access denied|internal server error|rate limit|too many requests|bad gateway|"
    rb'\{\s*"(error|errors|detail)"\s*:|<error>'
)


def look(head: bytes) -> Look | None:
    """What a file that begins with `head` (HEAD bytes of it, or all) is; None where it is nothing that is known."""
    if not head:
        return EMPTY
    if not head.strip(b"\0"):
        return ZEROS
    if (head[:4] == b"PK\3\4" and b"data.pkl" in head) or re.match(rb"\x80[\x02-\x05][}c(\]\x8a\x95]", head):
        return Look("a pickle of PyTorch", PICKLED)
    for at, magic, found in MAGIC:
        if head[at : at + len(magic)] == magic:
            return found
    if 2 <= int.from_bytes(head[:8], "little") < 100_000_000 and head[8:].lstrip(b" ")[:1] == b"{":
        return SAFETENSORS
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return PAGE
    if re.match(ERRORS, text) or (text.startswith(b"<?xml") and b"<error" in text):
        return ERROR
    return None


def what_is(path: Path) -> Look | None:
    """`look` at a file; None where it cannot be read."""
    try:
        if not path.is_file():  # opening a FIFO would hang
            return None
        with path.open("rb") as file:
            return look(file.read(HEAD))
    except (OSError, ValueError):
        return None
