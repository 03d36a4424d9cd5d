"""What a checkpoint stores is consumed, or named: the tensors and files that transformers takes, and no others."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from smolship.export.checkpoints import Checkpoint, open_checkpoint
from smolship.export.checkpoints.gguf import NAMES as GGUF_NAMES
from smolship.export.families.llama import NAMES
from smolship.export.transforms import theirs
from smolship.runtime.errors import InputError
from tests.gguf_maker import make_gguf

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"
Tensors = dict[str, np.ndarray]
RNG = np.random.default_rng(3)


def noise(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    return Path(shutil.copytree(tiny("llama"), tmp_path / "model"))


def edit(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def configure(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def shard(folder: Path, cut: float = 0.5) -> dict:
    """Two shards in place of the single file, and the index, which is returned."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    first = names[: int(len(names) * cut)]
    where = {name: f"model-0000{1 if name in first else 2}-of-00002.safetensors" for name in names}
    for file in set(where.values()):
        save_file({n: tensors[n] for n in names if where[n] == file}, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(index))
    return index


def assert_as_transformers(checkpoint: Checkpoint) -> None:
    """Every tensor of ours is what transformers loads from that folder, and the head is tied where it is there; what
    the probes take for the original is the same."""
    import torch
    from transformers import AutoModelForCausalLM

    from smolship.export.original import Original

    model = AutoModelForCausalLM.from_pretrained(checkpoint.path, dtype=torch.float32, local_files_only=True)
    state, probed = model.state_dict(), Original(checkpoint)
    for name, values in state.items():
        assert torch.equal(values, probed.tensors[name]), name
    assert checkpoint.config.tied_head == (
        model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    )
    for ours in checkpoint.config.shapes():
        np.testing.assert_array_equal(checkpoint.read(ours), state[theirs(NAMES, ours)].numpy(), ours)


def without_prefix(tensors: Tensors) -> None:
    for name in list(tensors):
        tensors[name.removeprefix("model.")] = tensors.pop(name)


TAKEN: dict[str, tuple[Callable[[Tensors], object], bool, str | None]] = {  # change, tied, note
    "as it is": (lambda t: None, True, None),
    "saved without its head": (without_prefix, True, None),
    "one tensor without the prefix": (lambda t: t.update({DOWN[6:]: t.pop(DOWN)}), True, None),
    "the same head again": (lambda t: t.update({HEAD: t[EMBED].copy()}), True, None),
    "the same head in another type": (
        lambda t: t.update({EMBED: t[EMBED].astype(np.float16), HEAD: t[EMBED].astype(np.float16).astype(np.float32)}),
        True,
        None,
    ),
    "the head alone": (lambda t: t.update({HEAD: t.pop(EMBED)}), True, None),
    "another head": (lambda t: t.update({HEAD: noise(300, 128)}), False, f"another {HEAD} is stored"),
    "a head of one other value": (
        lambda t: t.update({HEAD: np.concatenate([t[EMBED][:-1], t[EMBED][-1:] * np.float32(1.001)])}),
        False,
        "another lm_head",
    ),
    "a head of the whole model's name": (
        lambda t: t.update({f"model.{HEAD}": noise(300, 128)}),
        False,
        "another lm_head",
    ),
    "frequencies": (
        lambda t: t.update(
            {
                f"model.layers.{i}.self_attn.rotary_emb.inv_freq": (10_000 ** -(np.arange(16) / 16)).astype(np.float32)
                for i in (0, 1)
            }
        ),
        True,
        None,
    ),
    "frequencies of another theta": (
        lambda t: t.update({"model.rotary_emb.inv_freq": (50_000 ** -(np.arange(16) / 16)).astype(np.float32)}),
        True,
        "model.rotary_emb.inv_freq: not the frequencies that the config gives",
    ),
    "frequencies of another head": (
        lambda t: t.update({"model.rotary_emb.inv_freq": np.ones(8, np.float32)}),
        True,
        "not the frequencies",
    ),
}


@pytest.mark.parametrize(("change", "tied", "note"), TAKEN.values(), ids=TAKEN)
def test_tensors_are_taken_as_transformers_takes_them(copy, change, tied, note):
    edit(copy, change)
    checkpoint = open_checkpoint(str(copy))
    assert checkpoint.config.tied_head is tied is checkpoint.raw["tie_word_embeddings"]
    assert [note in found for found in checkpoint.notes] == [True] if note else checkpoint.notes == []
    assert_as_transformers(checkpoint)


def layer(index: int) -> Callable[[Tensors], object]:
    """A copy of layer 0 as another one."""
    return lambda t: t.update({n.replace("layers.0.", f"layers.{index}."): t[n].copy() for n in list(t) if ".0." in n})


def remove(*parts: str) -> Callable[[Tensors], object]:
    return lambda t: [t.pop(name) for name in list(t) if any(part in name for part in parts)]


def renamed(rename: Callable[[str], str]) -> Callable[[Tensors], object]:
    return lambda t: [t.update({rename(name): t.pop(name)}) for name in list(t)]


def fused(t: Tensors) -> None:
    for i in (0, 1):
        parts = [t.pop(f"model.layers.{i}.self_attn.{part}_proj.weight") for part in "qkv"]
        t[f"model.layers.{i}.self_attn.qkv_proj.weight"] = np.concatenate(parts)


LEFT: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "a bias": (
        lambda t: t.update({"model.layers.1.self_attn.v_proj.bias": noise(64)}),
        "does? not have.*v_proj.bias.*biases, where attention_bias is false.*set attention_bias to true",
    ),
    "a bias of the MLP": (lambda t: t.update({"model.layers.1.mlp.gate_proj.bias": noise(192)}), "mlp_bias is false"),
    "a layer more": (layer(2), "layers.2.*and 6 more.*layer 2, where num_hidden_layers is 2"),
    "a layer far beyond": (layer(700), "layer 700, where num_hidden_layers is 2"),
    "LoRA inside": (
        lambda t: t.update({f"{DOWN[:-7]}.lora_{part}.weight": noise(4, 192) for part in "AB"}),
        "lora_A.*not merged.*merge_and_unload",
    ),
    "norms of queries": (lambda t: t.update({"model.layers.0.self_attn.q_norm.weight": noise(32)}), "normalizes"),
    "a value head": (lambda t: t.update({"v_head.summary.weight": noise(1, 128)}), "v_head.*head of training"),
    "a classifier": (lambda t: t.update({"score.weight": noise(2, 128)}), "score.weight.*classification"),
    "a head's bias": (lambda t: t.update({"lm_head.bias": noise(300)}), "lm_head.bias"),
    "heads for more tokens": (lambda t: t.update({"medusa_head.0.linear.weight": noise(8, 128)}), "several tokens"),
    "experts": (lambda t: t.update({"model.layers.0.mlp.experts.0.up_proj.weight": noise(8, 128)}), "a mixture of"),
    "eyes": (lambda t: t.update({"vision_tower.patch.weight": noise(8, 8)}), "sees or hears"),
    "an unknown one": (lambda t: t.update({"model.layers.0.mlp.extra": noise(3)}), "does? not have.*mlp.extra"),
    "an unknown one without the prefix": (lambda t: t.update({"layers.0.wonder.weight": noise(3)}), "wonder"),
    "two names": (lambda t: t.update({DOWN[6:]: t[DOWN].copy()}), "under two names.*down_proj"),
    "a wrapper's prefix": (renamed(lambda n: f"module.{n}"), "module.model.embed.*begin with 'module.'"),
    "a compiled model's prefix": (renamed(lambda n: f"_orig_mod.{n}"), "begin with '_orig_mod.'"),
    "a multimodal model's prefix": (renamed(lambda n: n.replace("model.", "model.language_model.")), "missing"),
    "fused": (fused, "missing.*qkv_proj.*fused matrices"),
    "Meta's names": (
        renamed(
            lambda n: (
                n.replace("model.embed_tokens", "tok_embeddings")
                .replace("self_attn.q_proj", "attention.wq")
                .removeprefix("model.")
            )
        ),
        "missing.*Meta's own format",
    ),
    "a layer less": (remove("layers.1."), "layer 0 alone, where num_hidden_layers is 2.*correct num_hidden_layers"),
    "half a layer less": (remove("layers.1.mlp"), "down_proj.weight in [^:]*expected:.*3 are not"),
    "no final norm": (remove("model.norm"), "no model.norm.weight"),
    "other shapes": (lambda t: t.update({DOWN: noise(128, 190)}), "down_proj.weight has the wrong shape.*128, 190"),
}


@pytest.mark.parametrize(("change", "message"), LEFT.values(), ids=LEFT)
def test_tensors_that_do_not_fit_are_refused_with_what_they_are_a_sign_of(copy, change, message):
    edit(copy, change)
    with pytest.raises(InputError, match=f"(?s){message}"):
        open_checkpoint(str(copy))


def test_a_head_that_is_neither_tied_nor_there(copy):
    configure(copy, tie_word_embeddings=False)
    with pytest.raises(InputError, match=r"(?s)no lm_head.weight.*tie_word_embeddings"):
        open_checkpoint(str(copy))


def test_an_untied_head_is_told_from_the_embedding(tiny):
    checkpoint = open_checkpoint(str(tiny("llama_bias")))
    assert not checkpoint.config.tied_head and checkpoint.notes == []
    assert_as_transformers(checkpoint)


def test_a_different_head_is_exported_as_it_is(copy, tmp_path):
    """To the end: the translation from the original, which has that head, is exact."""
    from smolship.export import export

    edit(copy, lambda t: t.update({HEAD: noise(300, 128) / 8}))
    bundle = export(str(copy), tmp_path / "out", to=["onnx"], quant="none", context=64, probe_tokens=64)
    assert any("another lm_head.weight is stored" in note for note in bundle.manifest.quantization.notes)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    assert bundle.probes().gaps["decoder"].kl.max() < 1e-6


# --- files ---


def other(folder: Path, name: str) -> None:
    """Another model's weights under another name."""
    tensors = load_file(folder / WEIGHTS)
    save_file({n: -values for n, values in tensors.items()}, folder / name, {"format": "pt"})


def test_the_single_file_comes_before_an_index(copy, tmp_path):
    single = load_file(copy / WEIGHTS)
    edit(copy, lambda t: [t.update({n: t[n] + 1}) for n in list(t)])
    shard(copy)
    save_file(single, copy / WEIGHTS, {"format": "pt"})
    checkpoint = open_checkpoint(str(copy))
    left = f"model-00001-of-00002.safetensors, model-00002-of-00002.safetensors, {INDEX}"
    assert checkpoint.notes == [f"not read, as transformers takes model.safetensors and not these: {left}"]
    assert_as_transformers(checkpoint)


def test_an_index_is_read_where_the_single_file_is_a_link_to_nowhere(copy):
    shard(copy)
    (copy / WEIGHTS).symlink_to("blobs/gone")
    assert_as_transformers(open_checkpoint(str(copy)))


@pytest.mark.parametrize("name", ["consolidated.safetensors", "adapter_model.safetensors", "model.fp16.safetensors"])
def test_other_files_are_named(copy, name):
    other(copy, name)
    checkpoint = open_checkpoint(str(copy))
    assert checkpoint.notes == [f"not read, as transformers takes model.safetensors and not these: {name}"]
    assert_as_transformers(checkpoint)


def test_a_shard_may_be_spelled_in_another_way(copy):
    index = shard(copy)
    index["weight_map"] = {name: f"./{file}" for name, file in index["weight_map"].items()}
    (copy / INDEX).write_text(json.dumps(index))
    checkpoint = open_checkpoint(str(copy))
    assert checkpoint.notes == []
    assert_as_transformers(checkpoint)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "m-Q4_0.gguf", "consolidated.00.pth"])
def test_files_of_other_formats_are_named(copy, name):
    (copy / name).write_bytes(b"x")
    (copy / "training_args.bin").write_bytes(b"x")
    assert open_checkpoint(str(copy)).notes == [
        f"not read, as transformers takes model.safetensors and not these: {name}"
    ]


def test_the_config_may_name_the_file(copy):
    other(copy, "negative.safetensors")
    configure(copy, transformers_weights="negative.safetensors")
    checkpoint = open_checkpoint(str(copy))
    assert checkpoint.notes == ["not read, as transformers takes negative.safetensors and not these: model.safetensors"]
    assert_as_transformers(checkpoint)


@pytest.mark.parametrize(
    "name", [7, ["model.safetensors"], "../model/model.safetensors", "/etc/passwd", "model.bin", ""]
)
def test_a_file_that_the_config_may_not_name(copy, name):
    configure(copy, transformers_weights=name)
    with pytest.raises(InputError, match="transformers_weights"):
        open_checkpoint(str(copy))


def test_a_file_that_the_config_names_and_that_is_not_there(copy):
    configure(copy, transformers_weights="other.safetensors")
    with pytest.raises(InputError, match=r"(?s)names a file that is not there.*other.safetensors.*take the key out"):
        open_checkpoint(str(copy))


def test_shards_that_only_a_distributed_run_writes_are_refused(copy):
    other(copy, "shard-00001-model-00001-of-00001.safetensors")
    with pytest.raises(InputError, match=r"distributed checkpoint.*before any other"):
        open_checkpoint(str(copy))


def test_an_adapter_beside_the_model_is_refused(copy):
    (copy / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "tiny/base"}')
    with pytest.raises(
        InputError, match=r"(?s)adapter lies beside.*for tiny/base.*merge_and_unload.*take adapter_config"
    ):
        open_checkpoint(str(copy))


def test_what_lies_in_a_shard_counts_listed_or_not(copy):
    index = shard(copy)
    del index["weight_map"][DOWN]
    (copy / INDEX).write_text(json.dumps(index))
    checkpoint = open_checkpoint(str(copy))
    assert checkpoint.notes == []
    assert_as_transformers(checkpoint)


def test_what_an_index_lists_and_no_shard_holds_is_named(copy):
    index = shard(copy)
    index["weight_map"]["model.layers.9.ghost"] = "model-00001-of-00002.safetensors"
    (copy / INDEX).write_text(json.dumps(index))
    checkpoint = open_checkpoint(str(copy))
    assert checkpoint.notes == [f"{INDEX} names tensors that no shard holds: model.layers.9.ghost"]
    assert_as_transformers(checkpoint)


def test_a_shard_that_holds_nothing_but_what_is_tied(copy):
    index = shard(copy)
    embed = load_file(copy / index["weight_map"][EMBED])[EMBED]
    save_file({HEAD: embed}, copy / "model-head.safetensors", {"format": "pt"})
    index["weight_map"][HEAD] = "model-head.safetensors"
    (copy / INDEX).write_text(json.dumps(index))
    checkpoint = open_checkpoint(str(copy))
    assert checkpoint.config.tied_head and checkpoint.notes == []
    assert_as_transformers(checkpoint)


def test_shards_may_lie_in_a_folder_below(copy):
    index = shard(copy)
    (copy / "parts").mkdir()
    for name in sorted(set(index["weight_map"].values())):
        (copy / name).rename(copy / "parts" / name)
    index["weight_map"] = {name: f"parts/{file}" for name, file in index["weight_map"].items()}
    (copy / INDEX).write_text(json.dumps(index))
    assert_as_transformers(open_checkpoint(str(copy)))


def test_two_shards_may_hold_the_same_values_and_no_others(copy):
    one, two = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    shard(copy)
    repeated = load_file(copy / one)[DOWN]
    save_file(load_file(copy / two) | {DOWN: repeated}, copy / two, {"format": "pt"})
    assert_as_transformers(open_checkpoint(str(copy)))
    repeated[100, 3] += 1
    save_file(load_file(copy / two) | {DOWN: repeated}, copy / two, {"format": "pt"})
    with pytest.raises(InputError, match=f"(?s)two shards hold {DOWN}, and they differ.*{one} and {two}"):
        open_checkpoint(str(copy))


BAD_INDEX: dict[str, tuple[Callable[[dict], object], str]] = {
    "no metadata": (lambda index: index.pop("metadata"), 'no metadata.*add "metadata": {}'),
    "metadata of null": (lambda index: index.update(metadata=None), "no metadata"),
    "metadata is a list": (lambda index: index.update(metadata=[]), "no metadata"),
    "no names": (lambda index: index.update(weight_map={}), "no weight_map"),
    "names of null": (lambda index: index["weight_map"].update({DOWN: None}), "no weight_map"),
    "outside": (lambda index: index["weight_map"].update({DOWN: "x/../../model/y.safetensors"}), "outside the folder"),
    "absent": (lambda index: index["weight_map"].update({DOWN: "z.safetensors"}), "no z.safetensors.*1 of 3 are"),
    "pickles": (lambda index: index.update(weight_map={DOWN: "a.bin"}), "not safetensors files.*a.bin"),
}


@pytest.mark.parametrize(("change", "message"), BAD_INDEX.values(), ids=BAD_INDEX)
def test_an_index_that_transformers_cannot_use_is_refused(copy, change, message):
    index = shard(copy)
    change(index)
    (copy / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=f"(?s){message}"):
        open_checkpoint(str(copy))


def test_an_index_with_a_byte_order_mark_is_refused_as_transformers_refuses_it(copy):
    index = shard(copy)
    (copy / INDEX).write_bytes(b"\xef\xbb\xbf" + json.dumps(index).encode())
    with pytest.raises(InputError, match=r"(?s)shard index is not plain UTF-8.*byte order mark"):
        open_checkpoint(str(copy))


# --- GGUF ---


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"llama.block_count": 1}, "layer 1, where block_count is 1.*correct block_count"),
        ({"llama.block_count": 4}, "layers 0 to 1 alone, where block_count is 4"),
    ],
)
def test_a_gguf_of_another_number_of_layers(tiny, tmp_path, extra, message):
    make_gguf(tiny("llama"), tmp_path / "m.gguf", **extra)
    with pytest.raises(InputError, match=f"(?s){message}"):
        open_checkpoint(str(tmp_path / "m.gguf"))


def test_a_gguf_opens_by_its_first_bytes(tiny, tmp_path):
    make_gguf(tiny("llama"), tmp_path / "m.gguf")
    os.rename(tmp_path / "m.gguf", tmp_path / "sha256-0123")  # as Ollama keeps them  # noqa: PTH104
    checkpoint = open_checkpoint(str(tmp_path / "sha256-0123"))
    assert set(checkpoint.slots) == set(checkpoint.config.shapes()) and theirs(GGUF_NAMES, "embed")
