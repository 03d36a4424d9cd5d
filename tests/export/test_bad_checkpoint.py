"""Checkpoints that are broken, hostile or not there: one clear InputError each, at once, nothing allocated."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from smolship.export.checkpoints import open_checkpoint
from smolship.export.weights import SCHEMES, write_weights
from smolship.runtime.errors import InputError, SetupError

Break = Callable[[Path], object]
WEIGHTS = "model.safetensors"
UP = "model.layers.1.mlp.up_proj.weight"


def config(**values: Any) -> Break:
    """Overrides values of config.json; None removes one."""

    def apply(folder: Path) -> None:
        path = folder / "config.json"
        raw = json.loads(path.read_text()) | values
        path.write_text(json.dumps({k: v for k, v in raw.items() if v is not None}))

    return apply


def file(name: str, data: bytes | str) -> Break:
    return lambda folder: (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def gone(name: str) -> Break:
    return lambda folder: (folder / name).unlink()


def fifo(name: str) -> Break:
    return lambda folder: (gone(name)(folder), os.mkfifo(folder / name))


def broken_link(name: str) -> Break:
    return lambda folder: (gone(name)(folder), (folder / name).symlink_to("nowhere"))


def directory(name: str) -> Break:
    return lambda folder: (gone(name)(folder), (folder / name).mkdir())


def cut(name: str, size: int) -> Break:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size + size if size < 0 else size)


def header(**entry: Any) -> Break:
    """Overrides fields of one tensor's entry in the safetensors header."""

    def apply(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        length = int.from_bytes(data[:8], "little")
        head = json.loads(data[8 : 8 + length])
        head[UP] = head[UP] | entry if isinstance(entry, dict) else entry
        raw = json.dumps(head).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(raw)) + raw + data[8 + length :])

    return apply


def raw_header(text: str | bytes, length: int | None = None) -> Break:
    data = text if isinstance(text, bytes) else text.encode()
    return file(WEIGHTS, struct.pack("<Q", len(data) if length is None else length) + data)


def tensors(change: Callable[[dict[str, np.ndarray]], Any]) -> Break:
    """Loads the weights, changes them and saves them again."""

    def apply(folder: Path) -> None:
        loaded = load_file(folder / WEIGHTS)
        change(loaded)
        save_file(loaded, folder / WEIGHTS)

    return apply


def sharded(shard: str, present: bool = False) -> Break:
    """A shard index in place of the single file, naming `shard` for every tensor."""

    def apply(folder: Path) -> None:
        names = list(load_file(folder / WEIGHTS))
        if present:
            (folder / WEIGHTS).rename(folder / shard)
        else:
            (folder / WEIGHTS).unlink()
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return apply


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def index_alone(text: str) -> Break:
    return lambda folder: (gone(WEIGHTS)(folder), (folder / INDEX).write_text(text))


def index_link(folder: Path) -> None:
    gone(WEIGHTS)(folder)
    (folder / INDEX).symlink_to("nowhere")


DEEP = "[" * 100_000 + "]" * 100_000
INDEX = "model.safetensors.index.json"

BROKEN: dict[str, tuple[Break, str]] = {
    "no config": (gone("config.json"), "no config.json"),
    "config is a FIFO": (fifo("config.json"), "config.json is not a regular file"),
    "config is a folder": (directory("config.json"), "config.json is not a regular file"),
    "config is a broken link": (broken_link("config.json"), "a link to nowhere"),
    "config is empty": (file("config.json", ""), "config.json is not valid JSON"),
    "config is a list": (file("config.json", "[]"), "not a JSON object"),
    "config is not UTF-8": (file("config.json", b'{"a": "\xff"}'), "config.json is not valid JSON"),
    "config is deep": (file("config.json", f'{{"architectures": {DEEP}}}'), "config.json is not valid JSON"),
    "config is huge": (cut("config.json", 65 << 20), "config.json is too large"),
    "unknown architecture": (config(model_type="bert"), "unknown.*bert.*LlamaForCausalLM.*SmolLM3ForCausalLM"),
    "no model type": (config(model_type=None), "unknown architecture.*no model_type"),
    "another architecture": (config(architectures=["BertModel"]), "two architectures.*BertModel.*'llama'"),
    "two architectures": (config(architectures=["LlamaForCausalLM"] * 2), "two architectures"),
    "type: text": (config(hidden_size="128"), "'hidden_size'.*'128'.*a whole number"),
    "type: float": (config(num_hidden_layers=2.0), "'num_hidden_layers'"),
    "type: bool": (config(vocab_size=True), "'vocab_size'"),
    "type: list": (config(intermediate_size=[192]), "'intermediate_size'"),
    "type: object": (config(rms_norm_eps={"a": 1}), "'rms_norm_eps'"),
    "type: flag": (config(tie_word_embeddings="yes"), "'tie_word_embeddings'.*true or false"),
    "absurd layers": (config(num_hidden_layers=10**9), "'num_hidden_layers'"),
    "absurd size": (config(hidden_size=2**62), "'hidden_size'"),
    "absurd number": (config(vocab_size=10**4000), "'vocab_size'"),
    "absurd context": (config(max_position_embeddings=2**40), "'max_position_embeddings'"),
    "negative": (config(num_attention_heads=-4), "'num_attention_heads'"),
    "zero": (config(num_key_value_heads=0), "'num_key_value_heads'"),
    "heads that do not divide": (config(num_key_value_heads=3), "heads do not divide"),
    "odd head": (config(head_dim=33), "head_dim is odd"),
    "NaN": (config(rms_norm_eps=float("nan")), "'rms_norm_eps'.*nan"),
    "infinity": (config(rope_parameters={"rope_theta": float("inf")}), "'rope_theta'"),
    "unknown activation": (config(hidden_act="gelu"), "'hidden_act'.*silu"),
    "unknown rope": (config(rope_parameters={"rope_type": "spiral"}), "'rope_type'.*llama3"),
    "half a rope": (config(rope_parameters={"rope_type": "yarn"}), "'factor'"),
    "token id": (config(eos_token_id=300), "'eos_token_id'"),
    "token id of text": (config(bos_token_id=["1"]), "'bos_token_id'"),
    "NoPE layers": (config(architectures=None, model_type="smollm3", no_rope_layers=[1]), "'no_rope_layers'"),
    "no weights": (gone(WEIGHTS), "no weights"),
    "pickle only": (pickled, "pickled.*pytorch_model.bin"),
    "weights are a FIFO": (fifo(WEIGHTS), "safetensors file is not a regular file"),
    "weights are a broken link": (broken_link(WEIGHTS), "a link to nowhere"),
    "weights are empty": (file(WEIGHTS, b""), "not a safetensors file.*an empty file"),
    "weights are cut": (cut(WEIGHTS, -4), "of 1,141,296 bytes.*broken off"),
    "weights are cut in the header": (cut(WEIGHTS, 100), "100 of .* bytes.*broken off"),
    "header: huge": (raw_header("{}", 2**63), "a header of 9,223,372,036,854,775,808 bytes"),
    "header: too long by one": (raw_header("{}", 3), "10 of 11 bytes"),
    "header: no JSON": (raw_header("{]"), "invalid JSON in header"),
    "header: deep": (raw_header(f'{{"a": {DEEP}}}'), "recursion limit"),
    "header: no object": (raw_header("[]"), "invalid type: sequence"),
    "header: entry of text": (raw_header('{"a": "b"}'), "expected struct TensorInfo"),
    "header: no dtype": (raw_header('{"a": {"shape": [1], "data_offsets": [0, 4]}}'), "missing field `dtype`"),
    "header: longer than the file": (header(data_offsets=[0, 2**40]), "of 1,099,511,6.* bytes"),
    "header: negative": (header(data_offsets=[-8, 0]), "invalid value: integer `-8`"),
    "header: overflow": (header(shape=[2**40, 2**40]), "up_proj.weight', which needs"),
    "header: numbers without end": (header(shape=[10**4000] * 8), "number out of range"),
    "header: shape of text": (header(shape="ab"), "invalid type: string"),
    "header: dtype is a list": (header(dtype=["F32"]), "invalid type: sequence"),
    "header: unknown dtype": (header(dtype="F9"), "unknown variant `F9`"),
    "header: three offsets": (header(data_offsets=[0, 1, 2]), "invalid length 3"),
    "missing tensor": (tensors(lambda t: t.pop(UP)), f"no {UP}"),
    "wrong shape": (tensors(lambda t: t.update({UP: t[UP].T.copy()})), f"{UP} has the wrong shape.*128, 192"),
    "integers": (tensors(lambda t: t.update({UP: t[UP].astype(np.int8)})), rf"quantized already.*type I8: {UP} \(I8\)"),
    "missing shard": (sharded("model-00001-of-00001.safetensors"), "model-00001-of-00001.safetensors"),
    "shard outside": (sharded("../model.safetensors"), "outside the folder"),
    "shard at an absolute path": (sharded("/etc/passwd"), "outside the folder"),
    "shard is the parent": (sharded(".."), "outside the folder"),
    "shard with a NUL": (sharded("a\0b.safetensors"), "shards are missing"),
    "index of text": (index_alone('{"weight_map": "x"}'), "no weight_map"),
    "index of numbers": (index_alone('{"weight_map": {"a": 1}}'), "no weight_map"),
    "index is a broken link": (index_link, "a link to nowhere"),
    "no tokenizer": (gone("tokenizer.json"), "no tokenizer.json"),
    "tokenizer is a FIFO": (fifo("tokenizer.json"), "tokenizer.json is not a regular file"),
    "tokenizer is no JSON": (file("tokenizer.json", "tokens"), "tokenizer.json is not valid JSON"),
    "side file is a FIFO": (fifo("tokenizer_config.json"), "tokenizer_config.json is not a regular file"),
}


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    return Path(shutil.copytree(tiny("llama"), tmp_path / "model"))


@pytest.mark.parametrize(("breaks", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_checkpoint_is_refused_at_once(copy, breaks, message):
    breaks(copy)
    start = time.monotonic()
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        open_checkpoint(str(copy))
    assert time.monotonic() - start < 2
    assert caught.value.exit_code == 2 and len(str(caught.value)) < 2000


@pytest.mark.parametrize("depth", [100, 500, 900, 950])
@pytest.mark.parametrize("key", ["architectures", "hidden_size", "rope_parameters", "eos_token_id", "hidden_act"])
def test_nested_values_are_refused_at_any_depth(copy, key, depth):
    raw = json.loads((copy / "config.json").read_text())
    raw[key] = "@"
    nested = "[" * depth + "]" * depth
    (copy / "config.json").write_text(json.dumps(raw).replace('"@"', nested))
    with pytest.raises(InputError):
        open_checkpoint(str(copy))


VALUES = {
    "NaN in a matrix": (UP, np.nan, "int4", "not finite.*layers.1.up"),
    "infinity in a matrix": (UP, -np.inf, "int8", "not finite.*layers.1.up"),
    "too large for a scale": (UP, 1e7, "int4", "too large.*layers.1.up"),
    "too large for fp16": (UP, 1e5, "none", "does not fit fp16.*layers.1.up"),
    "NaN in a norm": ("model.norm.weight", np.nan, "int4", "does not fit fp16.*nan in norm"),
    "norm too large for fp16": ("model.norm.weight", 1e5, "int4", "does not fit fp16.*100000 in norm"),
}


@pytest.mark.parametrize(("tensor", "value", "scheme", "message"), VALUES.values(), ids=VALUES)
def test_values_that_no_target_could_hold_are_refused(copy, tmp_path, tensor, value, scheme, message):
    tensors(lambda t: t[tensor].reshape(-1).__setitem__(5, value))(copy)
    checkpoint = open_checkpoint(str(copy))
    with pytest.raises(InputError, match=f"(?s){message}"):
        write_weights(checkpoint, checkpoint.config, SCHEMES[scheme], tmp_path)


def test_shards_and_links_to_them_are_read(copy, tmp_path):
    """The Hub's cache keeps files as links into another folder."""
    plain = open_checkpoint(str(copy)).read("layers.0.q")
    sharded("model-00001-of-00001.safetensors", present=True)(copy)
    blob = tmp_path / "blob"
    (copy / "model-00001-of-00001.safetensors").rename(blob)
    (copy / "model-00001-of-00001.safetensors").symlink_to(blob)
    np.testing.assert_array_equal(open_checkpoint(str(copy)).read("layers.0.q"), plain)


@pytest.mark.parametrize("name", ["./none", "/nowhere/at/all", "a/b/c", "", "x" * 5000, "../" * 2000 + "y", "nul\0"])
def test_no_such_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        open_checkpoint(name)


class Hub:
    """Stands in for huggingface_hub's two functions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path | None, info: Exception | None):
        self.folder, self.info, self.asked = folder, info, {}
        monkeypatch.setattr("huggingface_hub.model_info", self.model_info)
        monkeypatch.setattr("huggingface_hub.snapshot_download", self.snapshot_download)

    def model_info(self, model, revision=None, timeout=None):
        from types import SimpleNamespace

        assert timeout and timeout <= 10
        if self.info:
            raise self.info
        return SimpleNamespace(sha="c0ffee")

    def snapshot_download(self, model, **options):
        from huggingface_hub.errors import LocalEntryNotFoundError

        self.asked = options | {"model": model}
        if self.folder is None:
            raise LocalEntryNotFoundError("not in the cache")
        return str(self.folder)


def not_found(kind: str) -> Exception:
    import huggingface_hub.errors as errors

    error = getattr(errors, kind)
    return error.__new__(error)  # its constructor wants an HTTP response


def test_a_hub_model_is_opened_at_its_commit(tiny, monkeypatch):
    hub = Hub(monkeypatch, tiny("llama"), None)
    checkpoint = open_checkpoint("owner/name", "main")
    assert checkpoint.revision == "c0ffee" == hub.asked["revision"] and not hub.asked["local_files_only"]
    assert not any("bin" in pattern for pattern in hub.asked["allow_patterns"])


@pytest.mark.parametrize("kind", ["RepositoryNotFoundError", "GatedRepoError", "RevisionNotFoundError"])
def test_not_on_the_hub_is_bad_input(monkeypatch, kind):
    Hub(monkeypatch, None, not_found(kind))
    with pytest.raises(InputError, match=f"not found on the Hub.*\n.*owner/name.*{kind}"):
        open_checkpoint("owner/name")


@pytest.mark.parametrize("error", [OSError("no route"), not_found("HTTPError")], ids=["OSError", "HTTPError"])
def test_a_hub_out_of_reach_is_a_matter_of_the_environment_unless_the_cache_has_it(tiny, monkeypatch, error):
    Hub(monkeypatch, None, error)
    with pytest.raises(SetupError, match="cannot be reached") as caught:
        open_checkpoint("owner/name")
    assert caught.value.exit_code == 3
    hub = Hub(monkeypatch, tiny("llama"), error)
    assert len(open_checkpoint("owner/name").config.layers) == 2
    assert hub.asked["local_files_only"]


def test_a_malformed_id_is_bad_input():
    with pytest.raises(InputError, match="not a Hub id"):
        open_checkpoint("owner--/.name")
