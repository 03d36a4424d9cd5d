"""The manifest's `generation` and `model`: read as untrusted, and what a bundle makes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from smolship.runtime import open_bundle
from smolship.runtime.errors import InputError
from smolship.runtime.facts import Recommended
from smolship.runtime.generate import Sampling
from smolship.runtime.manifest import SCHEMA, read_manifest
from smolship.tools.cli import run


@pytest.fixture
def bundle(tiny_bundle, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_bundle("llama", "int4"), tmp_path / "bundle"))


def change(bundle: Path, *path: str | int, value: Any) -> None:
    """Set one value of the manifest; an empty path is the whole of it, Ellipsis takes the key out."""
    raw = json.loads((bundle / "manifest.json").read_text())
    inner = raw
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    (bundle / "manifest.json").write_text(json.dumps(raw))


END = {"id": 2, "text": "<|im_end|>", "origins": ["config.json"]}
SAID = {"do_sample": True, "temperature": 0.5, "top_k": 9, "top_p": 0.5, "min_p": 0.1, "repetition_penalty": 1.1}
HUGE = 10**400
WRONG: list[tuple[tuple[str | int, ...], Any]] = [
    (("schema",), SCHEMA - 1),
    (("schema",), None),
    (("schema",), "2"),
    (("model",), {}),
    (("model",), []),
    (("model", "source"), None),
    (("model", "layers"), True),
    (("model", "vocab"), 0),
    (("model", "vocab"), 1 << 40),
    (("model", "vocab"), "300"),
    (("model", "revision"), 5),
    (("model", "parameters"), ...),
    (("quantization",), {}),
    (("quantization", "name"), None),
    (("quantization", "notes"), 3),
    (("quantization", "notes"), ["", 3]),
    (("quantization", "linear"), 4.0),
    (("quantization", "share_at_4_bits"), "all"),
    (("quantization", "lifted"), ...),
    (("steps",), []),
    (("steps", "quantize"), 3),
    (("steps", "quantize", "seconds"), HUGE),
    (("steps", "quantize", "peak_bytes"), 0.5),
    (("targets", "onnx", "more"), 1),
    (("targets", "onnx", "info"), {}),
    (("targets", "onnx", "info", "file"), 7),
    (("targets", "onnx", "info", "weights"), {"digest": "x"}),
    (("targets", "onnx", "engine"), True),
    (("files", "config.json"), 7),
    (("files", "config.json", "size"), "7"),
    (("files", "config.json", "sha256"), ...),
    (("generation",), None),
    (("generation",), {}),
    (("generation", "more"), 1),
    (("generation", "ends"), None),
    (("generation", "ends"), {"2": 2}),
    (("generation", "ends"), [END] * 513),
    (("generation", "ends"), [2]),
    (("generation", "ends"), [END | {"id": True}]),
    (("generation", "ends"), [END | {"id": 300}]),
    (("generation", "ends"), [END | {"id": -1}]),
    (("generation", "ends"), [END | {"id": 2.0}]),
    (("generation", "ends"), [END | {"id": HUGE}]),
    (("generation", "ends"), [END | {"text": 5}]),
    (("generation", "ends"), [END | {"origins": "x"}]),
    (("generation", "ends"), [END | {"origins": [1]}]),
    (("generation", "ends"), [END | {"x": 1}]),
    (("generation", "ends"), [{}]),
    (("generation", "bos"), 300),
    (("generation", "bos"), "1"),
    (("generation", "pad"), -5),
    (("generation", "adds_bos"), 1),
    (("generation", "template"), 7),
    (("generation", "special_tokens"), []),
    (("generation", "special_tokens"), {"bos_token": None}),
    (("generation", "special_tokens"), {"messages": "x"}),
    (("generation", "sampling"), None),
    (("generation", "sampling"), {}),
    (("generation", "sampling"), SAID | {"x": 1}),
    *(
        (("generation", "sampling", key), value)
        for key, value in (
            ("do_sample", 1),
            ("temperature", "hot"),
            ("temperature", None),
            ("temperature", float("nan")),
            ("temperature", float("inf")),
            ("temperature", HUGE),
            ("temperature", -1.0),
            ("top_k", 50.0),
            ("top_k", -1),
            ("top_k", True),
            ("top_p", 0),
            ("top_p", 1.5),
            ("top_p", []),
            ("min_p", 2),
            ("min_p", False),
            ("repetition_penalty", 0),
            ("repetition_penalty", -1.5),
            ("repetition_penalty", ...),
        )
    ),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("path", "value"), WRONG, ids=lambda value: None)
def test_a_manifest_that_lies(bundle, path, value, capsys):
    if path[:2] == ("generation", "sampling") and len(path) == 3:
        change(bundle, "generation", "sampling", value=SAID)
    change(bundle, *path, value=value)
    with pytest.raises(InputError):
        read_manifest(bundle)
    for command in (["inspect", str(bundle)], ["generate", str(bundle), "hi", "-e", "onnx"]):
        assert run(command) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_what_a_newer_export_may_add(bundle):
    """Keys that this version does not know change nothing, where they are facts for people."""
    before = read_manifest(bundle)
    for path in (("model",), ("quantization",), ("steps", "quantize"), ("files", "config.json")):
        change(bundle, *path, "more", value={"a": 1})
    assert read_manifest(bundle) == before


def test_a_manifest_is_written_as_it_was_read(bundle):
    text = (bundle / "manifest.json").read_text()
    read_manifest(bundle).write(bundle)
    assert (bundle / "manifest.json").read_text() == text


def test_inspect_shows_the_manifest_as_it_is(bundle, capsys):
    assert run(["inspect", str(bundle), "--json"]) == 0
    assert capsys.readouterr().out == (bundle / "manifest.json").read_text()


def test_an_older_bundle_is_to_be_exported_again(bundle):
    change(bundle, "schema", value=SCHEMA - 1)
    with pytest.raises(InputError, match=r"(?s)another version.*export it again"):
        read_manifest(bundle)


def test_what_a_bundle_makes_of_it(bundle):
    change(bundle, "generation", "ends", value=[END, END | {"id": 7, "text": ""}])
    change(bundle, "generation", "sampling", value=SAID)
    opened = open_bundle(bundle)
    assert opened.stop_ids == (2, 7)
    assert opened.sampling == Sampling(0.5, 0.5, 9, 0.1, 1.1)
    change(bundle, "generation", "sampling", value=SAID | {"do_sample": False})
    assert open_bundle(bundle).sampling == Sampling(0.0, 0.5, 9, 0.1, 1.1)
    assert open_bundle(bundle).manifest.generation.sampling == Recommended(**SAID | {"do_sample": False})  # type: ignore[arg-type]


def test_no_end_token_is_no_stop(bundle, capsys):
    change(bundle, "generation", "ends", value=[])
    assert run(["generate", str(bundle), "hi", "-e", "onnx", "--max-tokens", "6", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["end"] == "max_tokens"


def test_the_template_is_the_one_of_the_manifest(bundle):
    """A file that the manifest does not speak of is not taken for one, nor is another's list of templates."""
    assert open_bundle(bundle).template.render([{"role": "user", "content": "hi"}]).startswith("<|im_start|>user")
    change(bundle, "generation", "template", value=None)
    with pytest.raises(InputError, match="no chat template"):
        open_bundle(bundle).template  # noqa: B018
    change(bundle, "generation", "template", value="chat_template.jinja")
    (bundle / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match=r"no chat_template\.jinja"):
        open_bundle(bundle).template  # noqa: B018


def test_the_template_sees_the_special_tokens(bundle):
    change(bundle, "generation", "special_tokens", value={"bos_token": "<s>"})
    (bundle / "chat_template.jinja").write_text("{{ bos_token }}{{ eos_token }}|")
    assert open_bundle(bundle).template.render([]) == "<s>|"


def test_inspect_lists_end_tokens_with_their_origin(bundle, capsys):
    change(bundle, "generation", "ends", value=[END, {"id": 9, "text": "", "origins": ["chat template", "x\x1b[31m"]}])
    change(bundle, "generation", "sampling", value=SAID)
    assert run(["inspect", str(bundle), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["generation"]
    assert said["ends"][0] == END and said["sampling"] == SAID
    assert run(["inspect", str(bundle)]) == 0
    table = " ".join(capsys.readouterr().out.split())
    assert (
        "end tokens 2 <|im_end|>, from config.json 9 (no text), from chat template, x" in table and "\x1b" not in table
    )
    assert "BOS token 1, not put in front of text" in table
    assert "sampling temperature 0.5, top_k 9, top_p 0.5, min_p 0.1, repetition_penalty 1.1" in table
