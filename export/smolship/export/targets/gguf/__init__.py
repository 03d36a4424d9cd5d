"""GGUF for llama.cpp: `model.gguf`, whose blocks are our codes and scales, and a `Modelfile` for Ollama.

Q4_0 and Q8_0 hold a scale for each 32 inputs: a wider group's is repeated. Matrices that are not quantized are F16,
vectors and the kernels of convolutions F32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from smolship.export.checkpoints.gguf import KEYS
from smolship.export.config import DecoderConfig, only
from smolship.export.targets import Job
from smolship.export.targets.gguf.architectures import ARCHITECTURES
from smolship.export.targets.gguf.arithmetic import BLOCK
from smolship.export.targets.gguf.arithmetic import numerics as numerics
from smolship.export.targets.gguf.tensors import list_tensors, write_tensors
from smolship.export.targets.gguf.vocab import CONTROL, USER_DEFINED, differences, vocabulary
from smolship.export.weights import Weights
from smolship.runtime.errors import InputError
from smolship.runtime.facts import GenerationFacts, Recommended
from smolship.runtime.readback.hashing import Entry
from smolship.runtime.template import TEMPLATE

NAME = ENGINE = "gguf"
FILE = "model.gguf"
ENDS = ("eos", "eot", "eom")  # the end tokens that a file can name


def problems(config: DecoderConfig) -> list[str]:
    """Why llama.cpp's architecture of that name cannot express such a model."""
    if config.architecture not in ARCHITECTURES:
        return [f"{config.architecture!r}, which is not written as GGUF yet; known are {', '.join(ARCHITECTURES)}"]
    return ARCHITECTURES[config.architecture].problems(config)


def refusals(
    config: DecoderConfig, entries: Mapping[str, Entry], files: dict[str, bytes], facts: GenerationFacts
) -> list[str]:
    """Why its blocks cannot hold such weights, or llama.cpp would read text otherwise."""
    found = _unsaid(facts)
    wide = [name for name, entry in entries.items() if entry.bits < 16 and entry.group % BLOCK]
    if wide:
        others = f" (and {len(wide) - 1:,} more matrices)" if len(wide) > 1 else ""
        found.append(
            f"GGUF holds a scale for each {BLOCK} inputs, and {wide[0]}{others} has "
            f"{entries[wide[0]].shape[1]:,} inputs: export with --quant none"
        )
    try:
        vocabulary(files, config, facts)
    except InputError as error:
        found.append("; ".join(line.strip() for line in str(error).splitlines()))
    return found


def _unsaid(facts: GenerationFacts) -> list[str]:
    """What llama.cpp cannot do without: it would take token 11 for the end of a text."""
    why = "no token ends a text, and llama.cpp needs one: give eos_token_id in generation_config.json"
    return [] if facts.ends else [why]


def stored_bytes(entry: Entry) -> int:
    """Blocks of an fp16 scale and 32 codes, F16 matrices, F32 vectors and kernels (rows shorter than a block)."""
    count = math.prod(entry.shape)
    if entry.bits == 16:
        return count * (4 if len(entry.shape) == 1 or entry.shape[1] < BLOCK else 2)
    return count // BLOCK * (2 + BLOCK * entry.bits // 8)


def lower(job: Job, folder: Path) -> dict[str, Any]:
    """Write the model, tensor by tensor in pieces, and the Modelfile."""
    import gguf

    if lacks := _unsaid(job.facts):
        raise InputError("llama.cpp cannot hold this model", got="; ".join(lacks))
    metadata = {
        **_hyperparameters(job.config, job.weights),
        **_sampling(job.facts.sampling),
        **vocabulary(job.files, job.config, job.facts),
    }
    if TEMPLATE in job.files:
        metadata["tokenizer.chat_template"] = job.files[TEMPLATE].decode()
    with closing(gguf.GGUFWriter(folder / FILE, ARCHITECTURES[job.config.architecture].name)) as writer:
        add: dict[type, Callable[[str, Any], None]] = {
            str: writer.add_string,
            bool: writer.add_bool,
            int: writer.add_uint32,
            float: writer.add_float32,
            list: writer.add_array,
            np.int32: writer.add_int32,
        }
        for key, value in metadata.items():
            add[type(value)](key, value)
        list_tensors(writer, job)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        write_tensors(writer.fout[0], job)
    (folder / "Modelfile").write_text(modelfile(job, metadata), encoding="utf-8")
    info: dict[str, Any] = {"file": FILE, "context": job.context}
    notes = differences(job.files)
    held = {metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ENDS}
    if beyond := [f"{i:,}" for i in job.facts.end_ids if i not in held]:
        notes.append(
            f"GGUF names {len(ENDS)} end tokens: llama.cpp ends at the others ({', '.join(beyond)}) "
            "only where it knows their text; the Modelfile names the special ones"
        )
    return info | ({"notes": notes} if notes else {})


def _hyperparameters(config: DecoderConfig, weights: Weights) -> dict[str, Any]:
    import gguf

    bits = [weights.entries[name].bits for name in config.linears() if name != "head"]
    kinds = gguf.LlamaFileType
    most = {4: kinds.MOSTLY_Q4_0, 8: kinds.MOSTLY_Q8_0, 16: kinds.MOSTLY_F16}[max(set(bits), key=bits.count)]
    mixer, architecture = config.attentions[0], ARCHITECTURES[config.architecture]
    rotary = architecture.rotary(config)
    of = {
        "num_hidden_layers": len(config.layers),
        "hidden_size": config.hidden,
        "intermediate_size": _by_layer(layer.mlp.width for layer in config.layers),
        "num_attention_heads": _by_layer(mixer.heads for mixer in config.attentions),
        "num_key_value_heads": _by_layer(mixer.kv_heads for mixer in config.attentions),
        "head_dim": mixer.head_dim,
        "max_position_embeddings": config.positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": rotary.theta,
    }
    keys = {KEYS[name]: value for name, value in of.items()}
    keys |= {"attention.value_length": mixer.head_dim, "rope.dimension_count": rotary.width, "vocab_size": config.vocab}
    general = {
        "general.type": "model",
        "general.file_type": int(most),
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
    }
    keys |= architecture.metadata(config)
    return general | {f"{architecture.name}.{key}": value for key, value in keys.items()}


def _by_layer(values: Iterable[int]) -> int | list[int]:
    """One number where all layers have the same, else a list."""
    listed = list(values)
    return listed if (one := only(listed)) is None else one


def _sampling(said: Recommended) -> dict[str, Any]:
    """The recommended sampling as llama.cpp's programs take it from the file. A penalty is over the whole text, as
    transformers has it."""
    keys = {
        "temp": said.temperature if said.do_sample else 0.0,
        "top_k": np.int32(said.top_k),
        "top_p": said.top_p,
        "min_p": said.min_p,
        "penalty_repeat": said.repetition_penalty,
    }
    if said.repetition_penalty != 1:
        keys["penalty_last_n"] = np.int32(-1)
    return {f"general.sampling.{key}": value for key, value in keys.items()}


def modelfile(job: Job, metadata: dict[str, Any]) -> str:
    """Ollama's description of the model: what ends a turn, the context, and the sampling that its makers recommend, all
    of it, since Ollama's own defaults are others (a temperature of 0.8, for one).

    No TEMPLATE: Ollama's are programs in another language, and a translation would be a guess.
    """
    tokens = metadata["tokenizer.ggml.tokens"]
    lines = ["# The chat template is the one in the file, where Ollama recognizes it; else add a TEMPLATE."]
    lines += [f"FROM ./{FILE}", f"PARAMETER num_ctx {job.context}"]
    # Ollama compares text: an ordinary token's would end an answer wherever it occurs. Those are in the file by id.
    special = (i for i in job.facts.end_ids if metadata["tokenizer.ggml.token_type"][i] in (CONTROL, USER_DEFINED))
    lines += [f"PARAMETER stop {json.dumps(tokens[i], ensure_ascii=False)}" for i in special]
    said = job.facts.sampling
    of = {
        "temperature": said.temperature if said.do_sample else 0,
        "top_k": said.top_k,
        "top_p": said.top_p,
        "min_p": said.min_p,
        "repeat_penalty": said.repetition_penalty,
    }
    if said.repetition_penalty != 1:
        of["repeat_last_n"] = -1  # the whole text
    lines += [f"PARAMETER {key} {value:.9g}" for key, value in of.items()]
    return "\n".join(lines) + "\n"
