"""Manifests for manifest.py: a good one, what is changed of it, contents that are none, and files to check."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SHA = hashlib.sha256(b"").hexdigest()
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
MANY = {f"onnx/{name}": EMPTY for name in ("model.onnx.data", "model.onnx", "other", "model.onnx_2", "x/model.onnx")}
PACKAGE = {f"onnx/{name}": EMPTY for name in ("modèle.mlpackage/b", "modèle.mlpackage/a/c", "modèle.mlpackage.x")}
FILE = "files.onnx/model.onnx"
ONE_PLACE = (
    ("a/X", "a/x"),
    ("é", "e\u0301"),
    ("a", "a/b"),
    ("A", "a/b/c"),
    ("manifest.json",),
    ("Manifest.json",),
    ("manifest.json/x",),
)
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
    ("an artifact of several files", [("files", MANY)]),
    ("an artifact that is a folder", [("files", PACKAGE), ("targets.onnx.info.file", "modèle.mlpackage")]),
    ("weights of its own", [("targets.onnx.info.weights", {"digest": SHA, "rerounded": {"a group of 64": 3}})]),
    ("an odd weight_bytes_per_token is none", [("targets.onnx.info.weight_bytes_per_token", "many")]),
    *((f"files of one place: {', '.join(names)}", [("files", dict.fromkeys(names, EMPTY))]) for names in ONE_PLACE),
    ("a file beside folders whose names it begins", [("files", dict.fromkeys(("a", "ab/c", "a.b/c"), EMPTY))]),
    *((f"a file of {size} bytes", [(f"{FILE}.size", size)]) for size in (-1, (1 << 50) - 1, 1 << 50, (1 << 63) - 1)),
    (
        "files of more than 64 bits together",
        [("files", {"a": EMPTY | {"size": (1 << 63) - 1}, "b": EMPTY | {"size": 2}})],
    ),
    *(
        (f"a hash that is none: {hash!r}", [(f"{FILE}.sha256", hash)])
        for hash in ("", "../../x", SHA + "0", SHA + "\n")
    ),
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
