"""What is this folder, file or set of tensors really? Asked before the general words of a refusal, so that the cause
that is named, and what to do, are the real ones."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smolship.runtime.errors import InputError, clip
from smolship.runtime.files import read_json, read_text
from smolship.runtime.looks import ERROR, FETCH, HEAD, LFS, PAGE, look, what_is

EXPECTED = "a folder with config.json and model.safetensors, a GGUF file, or a Hub id"
RESAVE = "load it with transformers where you trust it, and save_pretrained(FOLDER)"
SOURCE = "export the checkpoint that it was made from"
MERGE = "merge it into its base model (peft: merge_and_unload(), then save_pretrained(FOLDER)), and export that"

SUFFIXES = {  # of a file that was named as the model: what it is, and what to do; its first bytes are asked before
    ".bin": ("a pickle of PyTorch", RESAVE),
    ".pt": ("a pickle of PyTorch", RESAVE),
    ".pth": ("a pickle of PyTorch", RESAVE),
    ".ckpt": ("a pickle of PyTorch", RESAVE),
    ".onnx": ("an ONNX model", SOURCE),
    ".pte": ("an ExecuTorch program", SOURCE),
    ".tflite": ("a TensorFlow Lite model", SOURCE),
    ".task": ("a MediaPipe bundle", SOURCE),
    ".litertlm": ("a LiteRT-LM bundle", SOURCE),
    ".mlmodel": ("a Core ML model", SOURCE),
    ".npz": ("weights of numpy or MLX", RESAVE),
    ".msgpack": ("weights of Flax", RESAVE),
    ".h5": ("weights of Keras", RESAVE),
    ".json": ("one of the files of a checkpoint", "name the folder that holds it"),
}


def names_in(path: Path) -> list[str]:
    """The names in a folder, sorted."""
    try:
        return sorted(entry.name for entry in path.iterdir())
    except (OSError, ValueError) as error:
        raise InputError("the folder cannot be read", got=error, expected="a readable folder") from None


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first few names, printable, and how many more there are."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(clip(name, 120) for name in names[:limit]) + more


def not_a_model(path: Path) -> InputError:
    """Why a file that was named as the model is none."""
    found = what_is(path)
    what, todo = found or SUFFIXES.get(path.suffix.lower()) or ("a file of an unknown kind", None)
    return InputError("the model is a file that is no GGUF", got=f"{what}: {path}", expected=EXPECTED, todo=todo)


def no_config(path: Path) -> InputError:
    """What a folder without config.json is."""
    names = names_in(path)
    got, todo = _without_config(path, names, set(names))
    return InputError("no config.json", got=f"{got}: {path}", expected=EXPECTED, todo=clip(todo) if todo else None)


def _without_config(path: Path, names: list[str], held: set[str]) -> tuple[str, str | None]:
    """(what a folder with those names in it is, what to do)"""
    ggufs = [name for name in names if name.lower().endswith(".gguf")]
    inner = [name for name in names if os.path.lexists(path / name / "config.json")]
    if "adapter_config.json" in held:
        return f"a LoRA adapter{_base(path)}", MERGE
    if ggufs:
        parts = any(re.search(r"-\d{5}-of-\d{5}\.gguf$", name) for name in ggufs)
        todo = f"name the file itself: {path / ggufs[0]}" if len(ggufs) == 1 else "name one of them"
        return f"a folder of GGUF files ({some(ggufs)})", (
            f"llama-gguf-split --merge {path / ggufs[0]} WHOLE.gguf, and name that" if parts else todo
        )
    if {"snapshots", "refs"} & held and path.name.startswith(("models--", "datasets--", "spaces--")):
        return "the root of a model in the Hub's cache", _snapshot(path)
    if path.name == "snapshots" and inner:
        return "the snapshots of a model in the Hub's cache", f"name one of them: {path / inner[0]}"
    if "model_index.json" in held:
        return "a pipeline of diffusers, which makes images", "export a language model"
    if "modules.json" in held or "config_sentence_transformers.json" in held:
        return "a model of sentence-transformers, which makes no text", "export a language model"
    if "params.json" in held:
        return (
            "a checkpoint in its maker's own format (params.json, consolidated weights)",
            "take its version for transformers, or convert it with transformers' conversion script",
        )
    if {"Manifest.json", "Data"} <= held or path.suffix in (".mlpackage", ".mlmodelc"):
        return "a Core ML model", SOURCE
    if any(name.endswith((".onnx", ".pte", ".tflite")) for name in names) or "openvino_model.xml" in held:
        return f"a model that is exported already ({some([n for n in names if not n.endswith('.json')])})", SOURCE
    if "saved_model.pb" in held or "tf_model.h5" in held:
        return "a model of TensorFlow", SOURCE
    if inner:
        return "a folder that holds the checkpoint in a folder of its own", f"name that one: {path / inner[0]}"
    if archives := [name for name in names if name.endswith((".zip", ".tar", ".tar.gz", ".tgz"))]:
        return f"a folder that holds an archive ({archives[0]})", "unpack it, and name the folder"
    if not names:
        return "an empty folder", f"fetch the model into it: hf download OWNER/NAME --local-dir {path}"
    if any(name.endswith(".safetensors") for name in names):
        return "weights without the config.json that belongs to them", f"{FETCH}: config.json is missing"
    return f"a folder of other files ({some(names)})", None


def _base(path: Path) -> str:
    """Of which model an adapter is one, in words; empty where it does not say so."""
    try:
        base = read_json(path / "adapter_config.json", "adapter_config.json").get("base_model_name_or_path")
    except InputError:
        return ""
    return f" for {base}" if isinstance(base, str) and base else ""


def _snapshot(path: Path) -> str:
    """What to do with the root of a model in the Hub's cache."""
    found = sorted(p for p in (path / "snapshots").glob("*") if p.is_dir()) if (path / "snapshots").is_dir() else []
    with contextlib.suppress(InputError):
        main = read_text(path / "refs" / "main", "refs/main", limit=100).strip()
        found.sort(key=lambda p: p.name != main)
    return f"name a snapshot in it: {found[0]}" if found else f"{FETCH}: it holds no snapshot"


def foreign_config(raw: Mapping[str, Any], path: Path) -> InputError | None:
    """What a config.json is that does not describe a checkpoint of transformers at all."""
    if raw.get("architectures") or not raw:
        return None
    if "peft_type" in raw:
        what, todo = "the config of a LoRA adapter", MERGE
    elif "_diffusers_version" in raw or "_class_name" in raw:
        what, todo = "the config of a part of a diffusers pipeline", "export a language model"
    elif {"n_layers", "dim"} <= set(raw):
        what, todo = "a config in its maker's own format", "take the model's version for transformers"
    else:
        return None
    return InputError(f"config.json is {what}", got=path, expected="the config of a causal language model", todo=todo)


def is_bundle(names: Sequence[str]) -> bool:
    """Whether a folder of those names is a bundle of ours."""
    return "manifest.json" in names and "weights.json" in names


def bundle(path: Path) -> InputError:
    return InputError(
        "the model is a smolship bundle, which is exported already", got=path, expected=EXPECTED, todo=SOURCE
    )


def named_and_absent(path: Path, names: Sequence[str], file: str) -> InputError:
    """The file that config.json names as that of the weights is not there."""
    if is_bundle(names):
        return bundle(path)
    return InputError(
        "config value 'transformers_weights' names a file that is not there",
        got=f"{file} in {path}",
        expected="the file of the weights",
        todo=f"take the key out of config.json if it is an old one, or {FETCH}",
    )


def no_weights(path: Path, names: list[str]) -> InputError:
    """Why a folder with a config.json holds no weights that can be taken."""
    weights = [name for name in names if name.endswith(".safetensors")]
    ggufs = [name for name in names if name.lower().endswith(".gguf")]
    halves = [name for name in names if re.search(r"\.(incomplete|part|partial|crdownload|aria2|download)$", name)]
    pickles = [n for n in names if n.endswith((".bin", ".bin.index.json")) or re.search(r"\.(pt|pth|ckpt)$", n)]
    expected, todo = "model.safetensors or model.safetensors.index.json", None
    if is_bundle(names):
        return bundle(path)
    if "adapter_config.json" in names:
        return InputError(
            "no weights", got=f"a LoRA adapter{_base(path)}, and no model, in {path}", expected=expected, todo=MERGE
        )
    if any(re.search(r"-\d{5}-of-\d{5}\.safetensors$", name) for name in weights):
        return InputError(
            "shards without their index",
            got=f"{some(weights)} in {path}",
            expected=expected,
            todo="fetch model.safetensors.index.json, too",
        )
    if pickles:
        return InputError(
            "the checkpoint is pickled, and a pickle can run any code",
            got=f"{some(pickles)} in {path}",
            expected="model.safetensors",
            todo=RESAVE,
        )
    if halves:
        got, todo = f"a download that was broken off ({some(halves)}) in {path}", "finish it: " + FETCH
    elif ggufs:
        got = f"config.json and GGUF files ({some(ggufs)}) in {path}"
        todo = f"name the file itself: {path / ggufs[0]}" if len(ggufs) == 1 else "name one of them"
    elif "weights.npz" in names or "weights.safetensors" in names:
        got, todo = f"a folder of MLX, as it was saved before 2024: {path}", SOURCE
    elif weights:
        got = f"{some(weights)} in {path}, under names that transformers does not look for"
        todo = "rename the file to model.safetensors if it is the whole model"
    elif left := [name for name in names if re.search(r"\.(onnx|pte|h5|msgpack|tflite|mlpackage)$", name)]:
        got, todo = f"weights of another framework ({some(left)}) in {path}", SOURCE
    else:
        got, todo = f"{path}, which holds {some(names)}", f"{FETCH}: the weights were left out"
    return InputError("no weights", got=got, expected=expected, todo=clip(todo))


def repository(model: str, names: Sequence[str]) -> InputError | None:
    """Why a repository of the Hub, by the names of its files, holds no model that could be exported; None: it may."""
    top = [name for name in names if "/" not in name]
    if not top or ("config.json" in top and any(name.endswith(".safetensors") for name in top)):
        return None
    ggufs = [name for name in names if name.lower().endswith(".gguf")]
    pickles = [name for name in top if name.endswith((".bin", ".pt", ".pth"))]
    got, todo = f"a repository of other files ({some(top)})", "choose another repository of the model"
    if "adapter_config.json" in top:
        got, todo = "a LoRA adapter", MERGE
    elif ggufs:
        got = f"a repository of GGUF files ({some(ggufs)})"
        todo = f"fetch one of them, and name it: hf download {model} {ggufs[0]} --local-dir ."
    elif "model_index.json" in top:
        got, todo = "a pipeline of diffusers, which makes images", "export a language model"
    elif pickles:
        got, todo = f"pickles ({some(pickles)}), which can run any code", RESAVE
    return InputError(
        "the repository holds no model that can be exported",
        got=f"{got}: {model}",
        todo=clip(todo),
        expected="config.json and safetensors",
    )


def absent_shards(path: Path, absent: list[str], count: int) -> InputError:
    return InputError(
        "shards are missing",
        got=f"no {some(absent)} in {path}: {len(absent)} of {count} are not there",
        expected="every file that the shard index names",
        todo=FETCH,
    )


def no_tokenizer(path: Path, names: Sequence[str], whose: str | None = None) -> InputError:
    """Why a folder holds no tokenizer.json. `whose`: whose the model has, of which checkpoints bring none."""
    older = [name for name in names if name.endswith((".model", ".tiktoken")) or name in ("vocab.json", "tekken.json")]
    got, todo = f"nothing at {path / 'tokenizer.json'}", FETCH
    if older:
        got = f"{some(older)} in {path}, an older form of it"
        todo = "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER), of transformers, writes one"
    elif whose:
        got += f"; checkpoints of this model bring none: it has {whose}"
        todo = f"--tokenizer FOLDER, with the tokenizer.json and tokenizer_config.json of {whose}"
    return InputError(
        "no tokenizer.json", got=got, expected="the tokenizer as the tokenizers library has it", todo=todo
    )


def not_itself(name: str, content: bytes, path: Path) -> InputError | None:
    """The refusal of a file beside the model in whose place something else lies; None where nothing speaks of that."""
    found = look(content[:HEAD])
    if found not in (LFS, PAGE, ERROR):
        return None
    return InputError(
        f"{name} is something else", got=f"{found.what} in {path / name}", expected="the file itself", todo=found.todo
    )


def adapter_beside(path: Path) -> InputError:
    return InputError(
        "an adapter lies beside the model",
        got=f"adapter_config.json{_base(path)} in {path}",
        expected="a model alone: transformers adds the adapter to it where peft is installed, and else not",
        todo=f"{MERGE}; or take adapter_config.json out if the model is meant without it",
    )
