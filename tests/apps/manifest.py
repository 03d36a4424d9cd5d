"""manifest.json: manifests that manifest.read_manifest accepts or refuses, and what check_files says of files.

manifest  the file's content: an object, or a text that is no JSON object or would not survive being one (1.0 for 1);
          "hex": bytes of the file instead
accepted  and, where it is, `read`: what an app needs of it. `why`: what is refused
files     of a bundle: path → text; where they are given, `problems`: path → "size", "sha256", "missing" or "unlisted",
          below the folder `below` ("": all)
"""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from smolship.runtime.errors import InputError
from smolship.runtime.manifest import NAME, Manifest, check_files, read_manifest

SHA = hashlib.sha256(b"").hexdigest()
Case = dict[str, Any]
GOOD: dict[str, Any] = {
    "schema": 2,
    "model": {
        "source": "example/tiny",
        "revision": None,
        "architecture": "LlamaForCausalLM",
        "layers": 2,
        "hidden": 128,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 32,
        "vocab": 300,
        "parameters": 1000,
        "checkpoint": None,
    },
    "generation": {
        "ends": [{"id": 2, "text": "<|im_end|>", "origins": ["config.json"]}],
        "bos": 1,
        "pad": None,
        "adds_bos": False,
        "sampling": {
            "do_sample": False,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        },
        "special_tokens": {"bos_token": "<|im_start|>"},
        "template": "chat_template.jinja",
    },
    "context": 512,
    "quantization": {
        "name": "int4",
        "linear": 4,
        "embedding": 8,
        "head": 8,
        "group": 32,
        "share_at_4_bits": 1.0,
        "notes": [],
        "lifted": 0,
    },
    "weights_digest": SHA,
    "weights_bytes": 1000,
    "targets": {
        "onnx": {
            "target": "onnx-cpu",
            "engine": "onnx",
            "folder": "onnx",
            "info": {"file": "model.onnx", "context": 512, "weight_bytes_per_token": 1000},
        }
    },
    "tools": {"smolship": "0.1.0"},
    "steps": {"onnx": {"seconds": 1.5, "peak_bytes": None, "run": None, "parts": None}},
    "files": {"onnx/model.onnx": {"size": 0, "sha256": SHA}},
}
EMPTY = {"size": 0, "sha256": SHA}
LONG = "x" * 256
OUTSIDE = ("", ".", "..", LONG, "../x", "/x", "a//b", "a/./b", "a/../../b", "a/..", "./a", "a/", "x\0y", "é" * 128)
FILE = "files.onnx/model.onnx"
NEXT = {"target": "executorch-xnnpack", "engine": "executorch", "folder": "executorch", "info": {"file": "model.pte"}}
ABSENT = object()
DEEP = "[" * 20_000 + "]" * 20_000
# Name, place ("a.b"; a number is an index), value; several places in turn.
ACCEPTED: list[tuple[str, list[tuple[str, Any]]]] = [
    ("as it is written", []),
    ("null for what may be null", [(f"model.{key}", None) for key in ("heads", "kv_heads", "head_dim", "revision")]),
    ("an older one: no checkpoint, no parts", [("model.checkpoint", ABSENT), ("steps.onnx.parts", ABSENT)]),
    ("more facts of the model than are known", [("model.nickname", "tiny")]),
    ("more about the quantization", [("quantization.extra", [1])]),
    ("more about a step", [("steps.onnx.host", "x")]),
    ("more about a file", [(f"{FILE}.mode", 420)]),
    ("more about an artifact", [("targets.onnx.info.anything", {"a": [1, 2.5, None]})]),
    ("two targets", [("targets.executorch", NEXT)]),
    ("no targets", [("targets", {})]),
    ("no files", [("files", {})]),
    ("no ends", [("generation.ends", [])]),
    ("512 ends", [("generation.ends", [{"id": i % 300, "text": "", "origins": []} for i in range(512)])]),
    ("the first and the last id", [("generation.bos", 0), ("generation.pad", 299)]),
    ("no template", [("generation.template", None)]),
    ("a recommended sampling", [("generation.sampling.do_sample", True), ("generation.sampling.temperature", 0.6)]),
    ("a whole number for a float", [("generation.sampling.temperature", 1), ("generation.sampling.do_sample", True)]),
    ("the largest context", [("context", 1 << 24)]),
    ("a file in folders", [("files", {"coreml/model.mlpackage/Data/com.apple.CoreML/weights/weight.bin": EMPTY})]),
    ("names with spaces, dots and accents", [("files", {"a b/…/é.bin": EMPTY, ".hidden": EMPTY})]),
    ("a name of 255 bytes", [("files", {"é" * 127 + "x": EMPTY})]),
    ("two dots in a name", [("files", {"a..b": EMPTY})]),
    ("a backslash in a file's name", [("files", {"a\\b": EMPTY})]),
    ("weights of its own", [("targets.onnx.info.weights", {"digest": SHA, "rerounded": {"a group of 64": 3}})]),
    ("an odd weight_bytes_per_token is none", [("targets.onnx.info.weight_bytes_per_token", "many")]),
]
REFUSED: list[tuple[str, list[tuple[str, Any]]]] = [
    *((f"without {key}", [(key, ABSENT)]) for key in GOOD),
    *((f"a {type(value).__name__} as schema", [("schema", value)]) for value in ("2", True)),
    ("schema 1", [("schema", 1)]),
    ("schema 3", [("schema", 3)]),
    ("an unknown key", [("surprise", 1)]),
    ("an unknown key of generation", [("generation.surprise", 1)]),
    ("an unknown key of the sampling", [("generation.sampling.typical_p", 1.0)]),
    ("an unknown key of an end", [("generation.ends.0.surprise", 1)]),
    ("an unknown key of a target", [("targets.onnx.surprise", 1)]),
    ("a text for a number", [("context", "512")]),
    ("a float for a whole number", [("context", 512.0)]),
    ("true for a number", [("model.layers", True)]),
    ("a number for a text", [("model.source", 7)]),
    ("a number for true", [("generation.adds_bos", 0)]),
    ("null for a number", [("model.vocab", None)]),
    ("an object for a list", [("generation.ends", {})]),
    ("a list for an object", [("files", [])]),
    ("a text in place of a target", [("targets.onnx", "onnx")]),
    ("context 0", [("context", 0)]),
    ("a context beyond bounds", [("context", (1 << 24) + 1)]),
    ("vocab 0", [("model.vocab", 0)]),
    ("a vocab beyond bounds", [("model.vocab", (1 << 24) + 1)]),
    ("513 ends", [("generation.ends", [{"id": 1, "text": "", "origins": []}] * 513)]),
    ("an end that is no token", [("generation.ends.0.id", 300)]),
    ("a negative end", [("generation.ends.0.id", -1)]),
    ("bos beyond the vocabulary", [("generation.bos", 300)]),
    ("pad below it", [("generation.pad", -1)]),
    ("an unknown special token", [("generation.special_tokens.tool_token", "x")]),
    ("a special token that is no text", [("generation.special_tokens.bos_token", None)]),
    ("temperature below 0", [("generation.sampling.do_sample", True), ("generation.sampling.temperature", -1.0)]),
    ("top_p 0", [("generation.sampling.top_p", 0.0)]),
    ("top_p 1.5", [("generation.sampling.top_p", 1.5)]),
    ("top_k -1", [("generation.sampling.top_k", -1)]),
    ("min_p 2", [("generation.sampling.min_p", 2.0)]),
    ("penalty 0", [("generation.sampling.repetition_penalty", 0.0)]),
    ("a share that is a huge whole number", [("quantization.share_at_4_bits", (1 << 53) + 1)]),
    ("a target without file", [("targets.onnx.info", {})]),
    ("a target's file is a number", [("targets.onnx.info.file", 7)]),
    *((f"a target's folder {name!r}", [("targets.onnx.folder", name)]) for name in OUTSIDE),
    *((f"a target's file {name!r}", [("targets.onnx.info.file", name)]) for name in OUTSIDE),
    *((f"a file named {name!r}", [("files", {name: EMPTY})]) for name in OUTSIDE),
    *((f"a target named {name!r}", [("targets", {name: NEXT})]) for name in (*OUTSIDE[:4], "a/b", "a\\b", "a\nb")),
    ("a file's size is a text", [(f"{FILE}.size", "0")]),
    ("a file's size is a float", [(f"{FILE}.size", 0.0)]),
    ("a file without hash", [(f"{FILE}.sha256", ABSENT)]),
]
RAW: dict[str, str | bytes] = {
    "an empty file": "",
    "an empty object": "{}",
    "a list": "[]",
    "a number": "2",
    "null": "null",
    "broken off": json.dumps(GOOD)[:-40],
    "something behind it": json.dumps(GOOD) + "x",
    "a comment": "// mine\n" + json.dumps(GOOD),
    "single quotes": json.dumps(GOOD).replace('"', "'"),
    "a comma too many": json.dumps(GOOD)[:-1] + ",}",
    "a web page": "<!DOCTYPE html><html></html>",
    "a git-lfs pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "a byte order mark": "\ufeff" + json.dumps(GOOD),
    "UTF-16": b"\xff\xfe" + json.dumps(GOOD).encode("utf-16-le"),
    "bytes that are not UTF-8": json.dumps(GOOD).encode().replace(b"tiny", b"t\xff\xfey"),
    "nested without end": json.dumps(GOOD | {"tools": {"a": 0}}).replace('"a": 0', f'"a": {DEEP}'),
    "not a number": json.dumps(GOOD).replace('"share_at_4_bits": 1.0', '"share_at_4_bits": NaN'),
    "a whole number beyond what floats hold": json.dumps(GOOD).replace('"top_p": 1.0', f'"top_p": {10**400}'),
    "infinity": json.dumps(GOOD).replace('"share_at_4_bits": 1.0', '"share_at_4_bits": 1e999'),
    "half of a surrogate pair in a file's name": json.dumps(GOOD).replace("onnx/model.onnx", "onnx/\\ud800"),
    "schema as a float": json.dumps(GOOD).replace('"schema": 2', '"schema": 2.0'),
}
HELLO = {"size": 5, "sha256": hashlib.sha256(b"hello").hexdigest()}
OTHER = {"size": 5, "sha256": hashlib.sha256(b"other").hexdigest()}
# Name, what the manifest lists, the files, below.
CHECKS: list[tuple[str, dict[str, Any], dict[str, str], str]] = [
    ("all is right", {"a": HELLO, "x/y/z": OTHER}, {"a": "hello", "x/y/z": "other"}, ""),
    ("a file with nothing in it", {"a": EMPTY}, {"a": ""}, ""),
    ("longer", {"a": HELLO}, {"a": "hello!"}, ""),
    ("shorter", {"a": HELLO}, {"a": "hell"}, ""),
    ("altered", {"a": HELLO}, {"a": "hallo"}, ""),
    ("exchanged", {"a": HELLO, "b": OTHER}, {"a": "other", "b": "hello"}, ""),
    ("missing", {"a": HELLO, "x/y": OTHER}, {"a": "hello"}, ""),
    ("unlisted", {"a": HELLO}, {"a": "hello", "x/y": "other"}, ""),
    ("several", {"a": HELLO, "b": HELLO, "c": HELLO}, {"b": "hallo", "c": "h", "d": ""}, ""),
    ("below a folder", {"a": HELLO, "x/y": OTHER}, {"a": "hallo", "x/y": "other", "x/z": "", "z": ""}, "x/"),
    ("a hash in capitals is another text", {"a": HELLO | {"sha256": HELLO["sha256"].upper()}}, {"a": "hello"}, ""),
]


def cases() -> list[Case]:
    found = [case(name, changed(places)) for name, places in ACCEPTED + REFUSED]
    found += [case(name, raw) for name, raw in RAW.items()]
    kinds = {name: True for name, _ in ACCEPTED} | dict.fromkeys([*RAW, *(name for name, _ in REFUSED)], False)
    assert not [one["name"] for one in found if one["accepted"] != kinds[one["name"]]]
    found += [checked(*check) for check in CHECKS]
    assert len({one["name"] for one in found}) == len(found)
    return found


def changed(places: list[tuple[str, Any]]) -> dict[str, Any]:
    """GOOD with other values in these places."""
    made = copy.deepcopy(GOOD)
    for place, value in places:
        parent: Any = made
        *way, last = (place,) if place in made else _way(place)
        for key in way:
            parent = parent[int(key) if isinstance(parent, list) else key]
        if value is ABSENT:
            del parent[last]
        else:
            parent[last] = value
    return made


def _way(place: str) -> list[str]:
    head, _, rest = place.partition(".")
    if head != "files":
        return place.split(".")
    name, _, key = rest.rpartition(".")
    return [head, name, key]


def case(name: str, content: dict[str, Any] | str | bytes) -> Case:
    with tempfile.TemporaryDirectory() as folder:
        told = _read(Path(folder), content)
    given = {"hex": content.hex()} if isinstance(content, bytes) else {"manifest": content}
    return {"name": name, **given, **told}


def checked(name: str, listed: dict[str, Any], files: dict[str, str], below: str) -> Case:
    content = GOOD | {"files": listed}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(text.encode())
        told = _read(root, content)
        problems = dict(map(_problem, check_files(root, read_manifest(root), below)))
    return {"name": name, "manifest": content, **told, "files": files, "below": below, "problems": problems}


def _problem(line: str) -> tuple[str, str]:
    name, _, rest = line.removeprefix("no ").partition(": ")
    if line.startswith("no "):
        return name.partition(";")[0], "missing"
    return name, {"its": "sha256", "not": "unlisted"}.get(rest.split()[0], "size")


def _read(root: Path, content: dict[str, Any] | str | bytes) -> Case:
    if isinstance(content, dict):
        content = json.dumps(content)
    (root / NAME).write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        return {"accepted": True, "read": _facts(read_manifest(root))}
    except InputError as error:
        return {"accepted": False, "why": error.parts()["what"]}


def _facts(manifest: Manifest) -> dict[str, Any]:
    facts, sampling = manifest.generation, manifest.generation.sampling.sampling()
    return {
        "vocab": manifest.model.vocab,
        "context": manifest.context,
        "end_ids": list(facts.end_ids),
        "bos": facts.bos,
        "adds_bos": facts.adds_bos,
        "special_tokens": facts.special_tokens,
        "sampling": {
            name: getattr(sampling, name) for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        },
        "template": facts.template,
        "targets": {
            name: {"engine": entry.engine, "path": f"{entry.folder}/{entry.info['file']}"}
            for name, entry in manifest.targets.items()
        },
        "bytes": sum(file.size for file in manifest.files.values()),
    }
