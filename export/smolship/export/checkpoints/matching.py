"""Every stored tensor is consumed or named: our tensors and where they lie, and what to say of the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from smolship.export.checkpoints.advice import FETCH, MERGE, RESAVE, some
from smolship.export.checkpoints.twice import same
from smolship.export.config import DecoderConfig
from smolship.export.slots import Rows
from smolship.export.transforms import Names, source, theirs
from smolship.runtime.errors import InputError
from smolship.runtime.tensors import parse

R = TypeVar("R", bound=Rows)


@dataclass
class Matched(Generic[R]):
    """The config as the stored tensors make it, our tensors by name, the stored ones that they are made of, by theirs,
    and notes of what is stored and not used."""

    config: DecoderConfig
    slots: dict[str, Rows]
    used: dict[str, R]
    notes: list[str] = field(default_factory=list)


# Buffers of older versions, which transformers computes and does not load.
BUFFERS = re.compile(r"rotary_emb\.(inv_freq|cos_cached|sin_cached)|_extra_state$|(^|\.)position_ids$")

# What tensors that a model should not have are signs of, and what to do. The first expression that finds one counts.
SIGNS = (
    (r"lora_|\.(base_layer|modules_to_save|ia3_l)\b", "an adapter that was not merged", MERGE),
    (
        r"(^|\.)v_head\.|(^|\.)(score|classifier|value_head|reward_head)\.",
        "a head of training or classification",
        "save the language model alone",
    ),
    (r"medusa|eagle|mtp|nextn", "heads that predict several tokens", "save the model without them"),
    (
        r"vision|visual|image|audio|mm_projector|multi_modal",
        "a model that also sees or hears",
        "save its language model alone",
    ),
    (r"experts|\.router\.|block_sparse_moe|ffn_(gate|up|down)_exps", "a mixture of experts", None),
    (r"\.conv\.conv\.|\.shortconv\.", "an architecture with short convolutions (LFM2, …)", None),
    (r"[qk]_norm\.|attn_[qk]_norm", "an architecture that normalizes queries and keys (Qwen3, OLMo2, …)", None),
    (r"(pre|post)_feedforward_layernorm|post_(ffw|attention)_norm", "an architecture with more norms (Gemma, …)", None),
    (r"qkv_proj|gate_up_proj|attn_qkv|query_key_value", "fused matrices (Phi-3, …)", None),
    (
        r"tok_embeddings|\.attention\.w[qkvo]\.|^layers\.\d+\.feed_forward\.w[123]\.",
        "the names of Meta's own format",
        "take the model's version for transformers",
    ),
    (r"sinks$|attn_sinks", "attention sinks", None),
)
OTHER = "take the config.json that belongs to these weights; another architecture may need a family of its own here"


def match(config: DecoderConfig, stored: Mapping[str, R], names: Names, path: Path) -> Matched[R]:
    """Our tensors among the stored ones: all there, of the shapes that the config says, and none left over.

    `names` is the checkpoint's naming. Raises InputError otherwise, with what the difference is a sign of.
    """
    left, notes = dict(stored), []
    head, embed = theirs(names, "head"), theirs(names, "embed")
    if config.tied_head and head in left:  # as transformers 5 does: it ties what is equal, or the one that is there
        if embed not in left:
            left[embed] = left.pop(head)
        elif same(left[embed], left[head]):
            del left[head]
        else:
            config = replace(config, tied_head=False)
            notes.append(
                f"the config ties the head to the embedding, and another {head} is stored: that one is used, "
                "as transformers 5 does"
            )
    shapes = config.shapes()
    sources = {ours: source(names, ours) for ours in shapes}
    used = {name for name, _ in sources.values()}
    if missing := [name for name in dict.fromkeys(name for name, _ in sources.values()) if name not in left]:
        raise _missing(missing, {n: left[n] for n in left if n not in used}, config, names, path)
    slots: dict[str, Rows] = {}
    for ours, (name, transform) in sources.items():
        wanted = shapes[ours] if transform is None else transform.stored_shape(parse(ours), config)
        if left[name].shape != wanted:
            raise InputError(
                f"{name} has the wrong shape",
                got=f"{list(left[name].shape)} in {path}",
                expected=f"{list(wanted)}, as the config says",
                todo="take config and weights of the same model",
            )
        slots[ours] = left[name] if transform is None else transform.apply(left[name], parse(ours), config)
    consumed = {name: left.pop(name) for name in used}
    notes += _buffers({name: left.pop(name) for name in list(left) if BUFFERS.search(name)}, config)
    if left:
        raise _extra(left, config, names, path)
    return Matched(config, slots, consumed, notes)


def as_transformers(stored: Mapping[str, R], config: DecoderConfig, names: Names, path: Path) -> dict[str, R]:
    """`stored` by the names that transformers gives them: a checkpoint that was saved from the model without its head
    lacks the prefix of all other names, and one that was saved from a wrapper has it before the head's."""
    prefix = theirs(names, "embed").split(".")[0] + "."
    wanted = {theirs(names, ours) for ours in config.shapes()} | {theirs(names, "head")}
    found: dict[str, str] = {}
    for name in stored:
        short = name.removeprefix(prefix)
        known = short if short in wanted else prefix + name if prefix + name in wanted else name
        if known in found:
            raise InputError(
                "a tensor is stored under two names",
                got=f"{found[known]} and {name} in {path}",
                expected="one of them",
                todo=RESAVE,
            )
        found[known] = name
    return {known: stored[name] for known, name in found.items()}


def _layer(name: str, names: Names) -> int | None:
    """The layer that a stored tensor belongs to."""
    found = re.match(re.escape(theirs(names, "layers.0.q").split("0")[0]) + r"(\d{1,6})\.", name)
    return int(found[1]) if found else None


def _layers(first: int, last: int) -> str:
    return f"layer {first}" if first == last else f"layers {first} to {last}"


def _sign(left: Mapping[str, R]) -> tuple[str, str | None] | None:
    """What tensors that the model should not have are a sign of, and what to do."""
    text = "\n".join(left)
    return next(((what, todo) for pattern, what, todo in SIGNS if re.search(pattern, text, re.M)), None)


def _missing(missing: list[str], left: Mapping[str, R], config: DecoderConfig, names: Names, path: Path) -> InputError:
    """Why tensors may be missing, by what is there instead."""
    got = f"no {some(missing)} in {path}"
    todo = "take config and weights of the same model, all of it"
    count = "block_count" if theirs(names, "layers.0.q").startswith("blk") else "num_hidden_layers"
    first = min((layer for name in missing if (layer := _layer(name, names)) is not None), default=0)
    tail = [name for ours in config.shapes() if (_layer(name := theirs(names, ours), names) or 0) >= first]
    longer = next((other for other in left if other.endswith("." + missing[0])), None)
    sign = _sign(left)
    if longer:
        got = f"{longer}, not {missing[0]}, in {path}"
        prefix = longer.removesuffix(missing[0])
        todo = f"save the model itself and not what it is wrapped in (all names begin with {prefix!r})"
    elif sign:
        got, todo = f"{got}; {some(list(left))} instead: {sign[0]}", sign[1] or OTHER
    elif missing == [theirs(names, "head")]:
        todo = "set tie_word_embeddings to true in config.json if the head is the embedding's table"
    elif first and missing == tail:
        got = f"{got}: {_layers(0, first - 1)} alone, where {count} is {len(config.layers)}"
        todo = f"correct {count} if the model has no more layers; or else {FETCH}, as shards are missing"
    return InputError(
        "a tensor is missing",
        got=got,
        todo=todo,
        expected=f"all that the config describes; {len(missing):,} are not there",
    )


def _extra(left: Mapping[str, R], config: DecoderConfig, names: Names, path: Path) -> InputError:
    """Why tensors may be stored that the config does not describe. Left out, the model would be another one."""
    extra = sorted(left)
    layers = {layer for name in extra if (layer := _layer(name, names)) is not None and layer >= len(config.layers)}
    count = "block_count" if theirs(names, "layers.0.q").startswith("blk") else "num_hidden_layers"
    sign, todo = _sign(left) or ("", None)
    if not sign and layers:
        sign = f"{_layers(min(layers), max(layers))}, where {count} is {len(config.layers)}"
        todo = f"correct {count}, or save the model without them"
    elif not sign and all(name.endswith(".bias") for name in extra):
        keys = {"mlp_bias" if "mlp" in name or "ffn" in name else "attention_bias" for name in extra}
        sign = f"biases, where {' and '.join(sorted(keys))} is false"
        todo = f"set {' and '.join(sorted(keys))} to true if the model was trained with them"
        if not any("o_proj" in name or "attn_output" in name for name in extra):
            todo += " (biases of q, k and v alone are another architecture's, such as Qwen2's)"
    got = f"{some(extra)} in {path}"
    return InputError(
        "tensors that the model does not have, as its config describes it",
        got=f"{got}: {sign}" if sign else got,
        expected="what the config describes, and no more",
        todo=todo or OTHER,
    )


def _buffers(found: Mapping[str, R], config: DecoderConfig) -> list[str]:
    """Notes of stored buffers that transformers does not load: of frequencies, where they are not the config's."""
    notes = []
    differ = [name for name, slot in found.items() if "inv_freq" in name and not _frequencies(slot, config)]
    if differ:
        notes.append(f"{some(differ)}: not the frequencies that the config gives, which count, as in transformers")
    if rest := [name for name in found if "inv_freq" not in name]:
        notes.append(f"stored and not used, as in transformers: {some(rest)}")
    return notes


def _frequencies(slot: Rows, config: DecoderConfig) -> bool:
    """Whether a stored table is that of a rotary embedding of the config, before or after scaling, rounded to bf16."""
    tables = [r.frequencies() for rotary in config.rotaries.values() for r in (rotary, replace(rotary, scaling=None))]
    known = [table for table in tables if table.shape == slot.shape]
    if not known:
        return False
    values = slot.read().astype(np.float64)
    return any(np.allclose(values, meant, rtol=2**-8, atol=2**-24) for meant in known)
