"""Folders, files and tensors that are no model to export: the real cause is named, and what to do."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from smolship.export.checkpoints import open_checkpoint
from smolship.export.checkpoints.prequantized import quantization_of
from smolship.runtime.errors import InputError
from smolship.runtime.looks import look, what_is
from tests.gguf_maker import blob, make_gguf, pair

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
DOWN = "model.layers.1.mlp.down_proj"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"7d" * 32 + b"\nsize 2471645608\n"
PAGE = b'\n<!DOCTYPE html>\n<html class="">\n<head><title>Log in</title></head></html>'
ERRORS = [
    b"Entry not found",
    b"Invalid username or password.",
    b'{"error":"Repository not found"}',
    b"Access to model owner/name is restricted. You must have access to it and be authenticated to access it.",
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>',
]
Break = Callable[[Path], object]


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    return Path(shutil.copytree(tiny("llama"), tmp_path / "model"))


def refused(model: Path | str, *words: str) -> str:
    """The message, which holds all these words, and has something to do in it."""
    with pytest.raises(InputError) as caught:
        open_checkpoint(str(model))
    message = str(caught.value)
    for word in words:
        assert word in message, message
    assert "to do:" in message and len(message) < 2000
    return message


# --- bytes ---

IN_PLACE = {
    "pointer": (LFS, "git-lfs pointer", "git lfs pull"),
    "page": (PAGE, "a web page", "hf download"),
    "empty": (b"", "an empty file", "hf download"),
    "zeros": (bytes(4096), "nothing but zeros", "hf download"),
    **{f"error {i}": (text, "a server's error message", "hf auth login") for i, text in enumerate(ERRORS)},
    "zip": (b"PK\3\4" + bytes(60), "a zip archive", "unpack it"),
    "gzip": (b"\x1f\x8b\x08" + bytes(60), "a gzip archive", "unpack it"),
}


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", WEIGHTS, "m.gguf"])
@pytest.mark.parametrize(("data", "what", "todo"), IN_PLACE.values(), ids=IN_PLACE)
def test_what_lies_in_place_of_a_file_is_named(copy, file, data, what, todo):
    (copy / file).write_bytes(data)
    refused(copy / file if file == "m.gguf" else copy, what, todo, file)


@pytest.mark.parametrize("file", [INDEX, "model-00002-of-00002.safetensors"])
def test_a_pointer_in_place_of_an_index_or_a_shard(copy, file):
    tensors = load_file(copy / WEIGHTS)
    (copy / WEIGHTS).unlink()
    names = sorted(tensors)
    where = {name: f"model-0000{1 + (name > names[9])}-of-00002.safetensors" for name in names}
    for shard in set(where.values()):
        save_file({n: tensors[n] for n in names if where[n] == shard}, copy / shard)
    (copy / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    open_checkpoint(str(copy))
    (copy / file).write_bytes(LFS)
    refused(copy, "git-lfs pointer", "git lfs pull", file)
    (copy / file).unlink()
    if file != INDEX:
        refused(copy, "shards are missing", "1 of 2", file, "hf download")
    else:
        refused(copy, "shards without their index", INDEX)


@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("data", [LFS, PAGE, *ERRORS[:3]], ids=["pointer", "page", "text", "text 2", "json"])
def test_what_lies_in_place_of_a_side_file_is_no_template(copy, file, data):
    (copy / file).write_bytes(data)
    refused(copy, f"{file} is something else", file)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_json_in_another_encoding_is_refused_as_its_other_readers_refuse_it(copy, file, encoding):
    text = (copy / file).read_text()
    (copy / file).write_text(text, encoding=encoding)
    with pytest.raises(InputError, match=f"{file} is not plain UTF-8"):
        open_checkpoint(str(copy))


def test_pickles_under_a_good_name(copy):
    import torch

    for old in (False, True):
        torch.save({"a": torch.ones(3)}, copy / WEIGHTS, _use_new_zipfile_serialization=not old)
        refused(copy, "a pickle of PyTorch", "save_pretrained")
    (copy / WEIGHTS).write_bytes(pickle.dumps({"w": [1.0]}))
    refused(copy, "a pickle of PyTorch")


def test_half_a_download_says_how_much_there_is(copy):
    size = (copy / WEIGHTS).stat().st_size
    os.truncate(copy / WEIGHTS, 500_000)
    refused(copy, f"500,000 of {size:,} bytes", "broken off")


def test_a_link_into_a_cache_that_lacks_the_file(copy):
    (copy / WEIGHTS).unlink()
    (copy / WEIGHTS).symlink_to("../../blobs/0f3a")
    refused(copy, "a link to nowhere", "Hub's cache")


@pytest.mark.parametrize("file", ["tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"])
def test_a_side_file_that_is_a_link_to_nowhere_is_not_left_out(copy, file):
    (copy / file).unlink(missing_ok=True)
    (copy / file).symlink_to("../../blobs/0f3a")
    refused(copy, f"no {file}", "a link to nowhere", "Hub's cache")


@pytest.mark.parametrize("data", [b"{}", b"plain words", "Grüße".encode(), b"\x01\x02\x03\x04" * 9, b"# a comment"])
def test_what_is_not_known_is_not_guessed(data, tmp_path):
    assert look(data) is None
    (tmp_path / "x").write_bytes(data)
    assert what_is(tmp_path / "x") is None


def test_only_files_are_looked_at(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert (
        what_is(tmp_path / "pipe") is what_is(tmp_path) is what_is(tmp_path / "none") is what_is(Path("a\0b")) is None
    )


def test_a_good_file_looks_like_what_it_is(tiny, tmp_path):
    make_gguf(tiny("llama"), tmp_path / "m.gguf")
    assert "GGUF" in what_is(tmp_path / "m.gguf").what
    assert "safetensors" in what_is(tiny("llama") / WEIGHTS).what
    assert what_is(tiny("llama") / "tokenizer.json") is what_is(tiny("llama") / "config.json") is None


# --- GGUF ---

ODD = {
    "version 1": (blob(version=1), "version 1", "convert the original"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(99), "a big-endian file", "convert the original"),
    "before GGUF": (b"tjgg\x03\0\0\0" + bytes(99), "GGJT", "convert the original"),
    "long before GGUF": (b"lmgg" + bytes(99), "GGML", "convert the original"),
    "safetensors": (struct.pack("<Q", 64) + b'{"a":' + bytes(99), "a safetensors file", "config.json"),
    "short": (b"GG", "another kind of file", "meant"),
    "cut": (blob([pair("a", 4, bytes(4))], data=0)[:38], "not a valid GGUF", "broken off"),
}


@pytest.mark.parametrize(("data", "what", "todo"), ODD.values(), ids=ODD)
def test_odd_ggufs(tmp_path, data, what, todo):
    (tmp_path / "model.gguf").write_bytes(data)
    refused(tmp_path / "model.gguf", what, todo)


@pytest.mark.parametrize(("kind", "what"), [("adapter", "a LoRA adapter"), ("mmproj", "sees"), ("wonder", "'wonder'")])
def test_ggufs_that_are_no_model(tiny, tmp_path, kind, what):
    make_gguf(tiny("llama"), tmp_path / "m.gguf", **{"general.type": kind})
    refused(tmp_path / "m.gguf", "the GGUF file is no model", what)


def test_a_gguf_that_says_that_it_is_a_model(tiny, tmp_path):
    make_gguf(tiny("llama"), tmp_path / "m.gguf", **{"general.type": "model"})
    assert len(open_checkpoint(str(tmp_path / "m.gguf")).config.layers) == 2


def test_a_tokenizer_in_an_older_form(copy):
    (copy / "tokenizer.json").unlink()
    refused(copy, "no tokenizer.json", "hf download")
    (copy / "tokenizer.model").write_bytes(b"\n\x0e")
    refused(copy, "no tokenizer.json", "tokenizer.model", "an older form", "AutoTokenizer")


def test_names_from_outside_are_printable(copy):
    (copy / "adapter\x1b[31m.safetensors").write_bytes(b"x")
    assert [note.isprintable() for note in open_checkpoint(str(copy)).notes] == [True]
    (copy / WEIGHTS).unlink()
    assert "\x1b" not in refused(copy, "no weights")


def test_a_folder_called_like_a_gguf_is_a_folder(tiny, tmp_path):
    shutil.copytree(tiny("llama"), tmp_path / "model.gguf")
    assert len(open_checkpoint(str(tmp_path / "model.gguf")).config.layers) == 2


# --- files and folders ---


def test_a_file_of_another_kind_as_the_model(copy, tmp_path):
    refused(copy / WEIGHTS, "a safetensors file", "name the folder")
    refused(copy / "config.json", "one of the files of a checkpoint", "name the folder")
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("config.json", "{}")
    refused(tmp_path / "m.zip", "a zip archive", "unpack it")
    with tarfile.open(tmp_path / "m.tar", "w") as archive:
        archive.add(copy / "config.json")
    refused(tmp_path / "m.tar", "a tar archive", "unpack it")
    for name, data, what in [
        ("m.onnx", b"\x08\x08\x12\x07pytorch", "an ONNX model"),
        ("m.pte", b"\x18\0\0\0ET12", "an ExecuTorch program"),
        ("m.tflite", b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
        ("m.pth", b"\x01\x02", "a pickle of PyTorch"),
        ("blob", b"\x80\x02}q\x00", "a pickle of PyTorch"),
    ]:
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, what, name)
    (tmp_path / "m.xyz").write_bytes(b"?")
    with pytest.raises(InputError, match="a file of an unknown kind"):
        open_checkpoint(str(tmp_path / "m.xyz"))


def put(**files: str | bytes) -> Break:
    """Writes files, by name with __ for a slash and _DOT_ for a dot."""

    def apply(folder: Path) -> None:
        for key, content in files.items():
            path = folder / key.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return apply


FOLDERS: dict[str, tuple[Break, tuple[str, ...]]] = {
    "LoRA": (
        put(adapter_config_DOT_json='{"base_model_name_or_path": "meta/base"}', adapter_model_DOT_safetensors=b""),
        ("a LoRA adapter for meta/base", "merge_and_unload"),
    ),
    "one GGUF": (put(tiny_DOT_gguf=b"GGUF"), ("a folder of GGUF files (tiny.gguf)", "name the file itself")),
    "two GGUFs": (put(a_DOT_gguf=b"GGUF", b_DOT_gguf=b"GGUF"), ("a.gguf, b.gguf", "name one of them")),
    "a split GGUF": (
        lambda f: [put(**{f"m-0000{i}-of-00002_DOT_gguf": b"GGUF"})(f) for i in (1, 2)],
        ("llama-gguf-split --merge", "m-00001-of-00002.gguf"),
    ),
    "diffusers": (put(model_index_DOT_json="{}", unet__config_DOT_json="{}"), ("diffusers", "language model")),
    "sentence-transformers": (put(modules_DOT_json="[]"), ("sentence-transformers", "language model")),
    "Meta": (put(params_DOT_json='{"dim": 64}', consolidated_DOT_00_DOT_pth=b"PK"), ("own format", "for transformers")),
    "Core ML": (put(Manifest_DOT_json="{}", Data__x=b""), ("a Core ML model", "made from")),
    "ONNX": (put(model_DOT_onnx=b"x", genai_config_DOT_json="{}"), ("exported already (model.onnx)", "made from")),
    "a folder within": (put(unpacked__config_DOT_json="{}"), ("a folder of its own", "unpacked")),
    "an archive within": (put(model_DOT_zip=b"PK"), ("holds an archive (model.zip)", "unpack")),
    "nothing": (lambda folder: None, ("an empty folder", "hf download OWNER/NAME --local-dir")),
    "weights alone": (put(model_DOT_safetensors=b"x"), ("weights without the config.json", "config.json is missing")),
}


@pytest.mark.parametrize(("make", "words"), FOLDERS.values(), ids=FOLDERS)
def test_folders_without_a_config(tmp_path, make, words):
    (tmp_path / "f").mkdir()
    make(tmp_path / "f")
    refused(tmp_path / "f", "no config.json", *words)


def test_the_root_of_a_model_in_the_hubs_cache(tiny, tmp_path):
    root = tmp_path / "models--owner--name"
    for commit in ("1111", "9999"):
        shutil.copytree(tiny("llama"), root / "snapshots" / commit)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("9999")
    refused(root, "root of a model in the Hub's cache", f"name a snapshot in it: {root / 'snapshots' / '9999'}")
    refused(root / "snapshots", "name one of them")
    assert len(open_checkpoint(str(root / "snapshots" / "9999")).config.layers) == 2


WEIGHTLESS: dict[str, tuple[Break, tuple[str, ...]]] = {
    "a pickle": (put(pytorch_model_DOT_bin=b""), ("pickled", "pytorch_model.bin", "save_pretrained")),
    "pickled shards": (put(pytorch_model_DOT_bin_DOT_index_DOT_json="{}"), ("pickled", "save_pretrained")),
    "shards alone": (lambda f: put(**{"model-00001-of-00003_DOT_safetensors": b""})(f), ("without their index", INDEX)),
    "half a download": (put(model_DOT_safetensors_DOT_aria2=b""), ("broken off", "model.safetensors.aria2")),
    "a GGUF": (put(q4_DOT_gguf=b"GGUF"), ("config.json and GGUF files (q4.gguf)", "name the file itself")),
    "old MLX": (put(weights_DOT_npz=b"PK"), ("a folder of MLX", "made from")),
    "a variant": (put(model_DOT_fp16_DOT_safetensors=b""), ("model.fp16.safetensors", "rename")),
    "an ONNX model": (put(model_DOT_onnx=b""), ("another framework (model.onnx)", "made from")),
    "an adapter": (put(adapter_config_DOT_json="{}"), ("a LoRA adapter", "no model", "merge_and_unload")),
    "none": (lambda f: None, ("no weights", "the weights were left out")),
}


@pytest.mark.parametrize(("make", "words"), WEIGHTLESS.values(), ids=WEIGHTLESS)
def test_folders_without_weights(copy, make, words):
    (copy / WEIGHTS).unlink()
    make(copy)
    refused(copy, *words)


@pytest.mark.real
def test_a_bundle_is_exported_already(tiny_bundle):
    refused(tiny_bundle("llama", "int4"), "a smolship bundle", "made from")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"peft_type": "LORA", "r": 8}, ("LoRA adapter", "merge_and_unload")),
        ({"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.30"}, ("diffusers",)),
        ({"dim": 64, "n_layers": 2, "n_heads": 4}, ("own format", "for transformers")),
        ({"error": "Invalid username or password."}, ("a server's error message", "hf auth login")),
    ],
)
def test_configs_of_something_else(copy, raw, words):
    (copy / "config.json").write_text(json.dumps(raw))
    refused(copy, "config.json", *words)


# --- quantized already ---


def swap(tensors: dict, **parts: np.ndarray) -> None:
    """Other tensors in place of one weight, by the ends of their names."""
    tensors.pop(f"{DOWN}.weight")
    tensors |= {f"{DOWN}.{name.replace('__', '.')}": value for name, value in parts.items()}


I32, U8, I8, F16 = (np.zeros((16, 8), kind) for kind in (np.int32, np.uint8, np.int8, np.float16))
U32 = np.zeros((16, 8), np.uint32)
QUANTIZED: dict[str, tuple[dict, dict, str]] = {
    "GPTQ": ({"qweight": I32, "qzeros": I32, "scales": F16, "g_idx": I32}, {"quant_method": "gptq", "bits": 4}, "GPTQ"),
    "AWQ": ({"qweight": I32, "qzeros": I32, "scales": F16}, {"quant_method": "awq"}, "AWQ"),
    "torchao": ({"_weight_qdata": I8, "_weight_scale": F16}, {"quant_method": "torchao"}, "torchao"),
    "bitsandbytes 4": (
        {"weight": U8, "weight__absmax": U8, "weight__quant_state__bitsandbytes__nf4": U8},
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        "bitsandbytes",
    ),
    "bitsandbytes 8": (
        {"weight": I8, "SCB": F16, "weight_format": U8},
        {"quant_method": "bitsandbytes"},
        "bitsandbytes",
    ),
    "fp8": ({"weight": U8, "weight_scale_inv": F16}, {"quant_method": "fp8"}, "fp8"),
    "compressed": (
        {"weight_packed": I32, "weight_scale": F16, "weight_shape": I32},
        {"quant_method": "compressed-tensors"},
        "compressed-tensors",
    ),
    "HQQ": ({"W_q": U8, "scale": F16, "zero": F16}, {"quant_method": "hqq"}, "HQQ"),
    "MLX": ({"weight": U32, "scales": F16, "biases": F16}, {}, "MLX"),
}


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(("parts", "config", "name"), QUANTIZED.values(), ids=QUANTIZED)
def test_quantized_checkpoints_are_named(copy, parts, config, name, declared):
    tensors = load_file(copy / WEIGHTS)
    swap(tensors, **parts)
    save_file(tensors, copy / WEIGHTS)
    raw = json.loads((copy / "config.json").read_text())
    if declared:
        raw |= {"quantization_config": config} if config else {"quantization": {"group_size": 64, "bits": 4}}
        assert quantization_of(raw) == name
    (copy / "config.json").write_text(json.dumps(raw))
    message = refused(copy, "quantized already", name, DOWN, "export the checkpoint that it was made from")
    assert "shard" not in message and ("config.json says" in message) is declared


def test_a_declaration_left_behind_is_named(copy):
    raw = json.loads((copy / "config.json").read_text()) | {"quantization": {"group_size": 32, "bits": 8}}
    (copy / "config.json").write_text(json.dumps(raw))
    note = "config.json: quantization (MLX) is left behind: the weights are plain, and taken as such"
    assert open_checkpoint(str(copy)).notes == [note]


def test_scales_beside_plain_weights(copy):
    tensors = load_file(copy / WEIGHTS)
    save_file(tensors | {f"{DOWN}.input_scale": np.ones(1, np.float32)}, copy / WEIGHTS)
    refused(copy, "quantized already", "with scales", f"{DOWN}.input_scale")


def test_a_type_alone_is_a_sign(copy):
    tensors = load_file(copy / WEIGHTS)
    tensors[f"{DOWN}.weight"] = np.zeros((128, 192), np.uint8)
    save_file(tensors, copy / WEIGHTS)
    refused(copy, "quantized already", "weights of type U8", DOWN)
    (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes().replace(b'"dtype":"U8"', b'"dtype":"F8_E5M2"'))
    length = int.from_bytes((copy / WEIGHTS).read_bytes()[:8], "little") + 5
    (copy / WEIGHTS).write_bytes(struct.pack("<Q", length) + (copy / WEIGHTS).read_bytes()[8:])
    refused(copy, "quantized already", "fp8", DOWN)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ({}, None),
        ({"quantization_config": None}, None),
        ({"quantization_config": []}, None),
        ({"quantization_config": {}}, None),
        ({"quantization_config": {"quant_method": 4}}, "an unnamed method"),
        ({"quantization_config": {"quant_method": "mine"}}, "'mine'"),
        ({"quantization_config": {"load_in_8bit": True}}, "bitsandbytes"),
        ({"compression_config": {"format": "x"}}, "compressed-tensors"),
        ({"quantization": {"bits": 4}}, "MLX"),
        ({"quantization_config": {"group_size": 64, "bits": 4}}, "MLX"),
    ],
)
def test_what_a_config_declares(raw, name):
    assert quantization_of(raw) == name


# --- the Hub ---


def test_a_repository_of_other_files_is_named_before_its_download(monkeypatch):
    from types import SimpleNamespace

    def info(*files: str) -> None:
        siblings = [SimpleNamespace(rfilename=name) for name in files]
        monkeypatch.setattr("huggingface_hub.model_info", lambda *a, **k: SimpleNamespace(sha="1", siblings=siblings))

    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: pytest.fail("downloaded"))
    info("README.md", "m-Q4_0.gguf", "m-Q8_0.gguf")
    refused("owner/name-GGUF", "GGUF files", "m-Q4_0.gguf", "hf download owner/name-GGUF m-Q4_0.gguf")
    info("adapter_config.json", "adapter_model.safetensors")
    refused("owner/lora", "a LoRA adapter", "merge_and_unload")
    info("model_index.json", "unet/config.json")
    refused("owner/pictures", "diffusers")
