"""ONNX for ONNX Runtime's CPU provider: `model.onnx`, its external data, and what onnxruntime-genai wants beside it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import onnx_ir as ir

from smolship.export.config import DecoderConfig, ShortConv
from smolship.export.features import COMMON, beyond
from smolship.export.targets import Job
from smolship.export.targets.onnx.arithmetic import ON_ARM as ON_ARM
from smolship.export.targets.onnx.arithmetic import numerics as numerics
from smolship.export.targets.onnx.attention import kept_head as kept_head
from smolship.export.targets.onnx.data import DataFile, block_of
from smolship.export.targets.onnx.emit import emit
from smolship.runtime.facts import GenerationFacts
from smolship.runtime.readback.hashing import Entry

NAME = "onnx-cpu"
ENGINE = "onnx"

FILE = "model.onnx"  # the name that optimum takes without a word
# A decoder's `type` in genai_config.json, where genai has no word for it: all are run alike.
GENAI = {"olmo2": "olmo", "openelm": "llama"}
COPIED = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


HOLDS = COMMON | {"heads"}  # of features.py


def problems(config: DecoderConfig) -> list[str]:
    """Why ONNX Runtime cannot hold such a model; empty where it can."""
    return beyond(config, HOLDS)


def stored_bytes(entry: Entry) -> int:
    """Float32 for what is not quantized, and for each block's scale; rows are padded to whole blocks."""
    if entry.bits == 16:
        return 4 * math.prod(entry.shape)
    blocks = entry.shape[0] * -(-entry.shape[1] // block_of(entry))
    return blocks * (block_of(entry) * entry.bits // 8 + 4)


def lower(job: Job, folder: Path) -> dict[str, Any]:
    """Write the model and its data, and the files that let onnxruntime-genai open `folder` as it is. `head_dims` are
    told where the cache keeps longer heads than the model has."""
    with DataFile(job, folder / f"{FILE}.data") as data:
        model = emit(job, data)
    ir.save(model, folder / FILE)
    for name in COPIED:
        if name in job.files:
            (folder / name).write_bytes(job.files[name])
    if "tokenizer_config.json" not in job.files:
        (folder / "tokenizer_config.json").write_text("{}")  # genai wants one
    info: dict[str, Any] = {"file": FILE, "context": job.context}
    sizes = [mixer.head_dim for mixer in job.config.attentions]
    if [*map(kept_head, sizes)] != sizes:
        info["head_dims"] = sizes
    (folder / "genai_config.json").write_text(json.dumps(genai_config(job.config, job.context, job.facts), indent=2))
    if min_p := job.facts.sampling.min_p:
        info["notes"] = [f"genai_config.json has no word for min_p {min_p:g}: set it in your own code"]
    return info


TOLD = ("lfm2",)  # architectures whose cache in onnxruntime-genai asks for the kind of each layer, convolutions or not


def genai_config(config: DecoderConfig, context: int, facts: GenerationFacts) -> dict[str, Any]:
    """onnxruntime-genai's description of the model. It refuses keys that it does not know. Where heads differ by layer
    it goes by the shapes in the model, and its own words are of the first."""
    ends, sampling, mixer = list(facts.end_ids), facts.sampling, config.attentions[0]
    convolves = [isinstance(layer.mixer, ShortConv) for layer in config.layers]
    past: dict[str, str] = {}
    present: dict[str, str] = {}
    layers: dict[str, Any] = {}
    if any(convolves):
        past = {"past_conv_names": "past_key_values.%d.conv_state"}
        present = {"present_conv_names": "present.%d.conv_state"}
    if any(convolves) or config.architecture in TOLD:
        layers = {"layer_types": ["conv" if one else "full_attention" for one in convolves]}
    return {
        "model": {
            "type": GENAI.get(config.architecture, config.architecture),
            "bos_token_id": 0 if facts.bos is None else facts.bos,
            "eos_token_id": ends,
            "pad_token_id": facts.pad if facts.pad is not None else ends[0] if ends else 0,
            "vocab_size": config.vocab,
            "context_length": context,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": FILE,
                "head_size": kept_head(mixer.head_dim),
                "hidden_size": config.hidden,
                "num_attention_heads": mixer.heads,
                "num_key_value_heads": mixer.kv_heads,
                "num_hidden_layers": len(config.layers),
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                    **past,
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                    **present,
                },
                **layers,
            },
        },
        "search": {
            "do_sample": sampling.do_sample,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "repetition_penalty": sampling.repetition_penalty,
            "max_length": context,
            "past_present_share_buffer": True,
        },
    }
