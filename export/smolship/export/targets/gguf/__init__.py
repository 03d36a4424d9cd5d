"""GGUF for llama.cpp: `model.gguf`, whose blocks are our codes and scales, and a `Modelfile` for Ollama.

Q4_0 and Q8_0 hold a scale for each 32 inputs: a wider group's is repeated. Matrices that are not quantized are F16,
vectors and the kernels of convolutions F32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from smolship.export.checkpoints.gguf import KEYS, names_of
from smolship.export.config import DecoderConfig
from smolship.export.rotary import LinearScaling
from smolship.export.targets import Job
from smolship.export.targets.gguf.architectures import ARCHITECTURES
from smolship.export.targets.gguf.arithmetic import BLOCK
from smolship.export.targets.gguf.arithmetic import numerics as numerics
from smolship.export.targets.gguf.vocab import CONTROL, USER_DEFINED, vocabulary
from smolship.export.transforms import theirs
from smolship.export.weights import Weights
from smolship.runtime.errors import InputError
from smolship.runtime.facts import GenerationFacts, Recommended
from smolship.runtime.readback.hashing import Entry
from smolship.runtime.template import TEMPLATE
from smolship.runtime.tensors import GGUF_WOVEN, KERNELS, parse

NAME = ENGINE = "gguf"
FILE = "model.gguf"
ROPE = "rope_freqs.weight"  # divisors of the frequencies
ENDS = ("eos", "eot", "eom")  # the end tokens that a file can name
CHUNK = 1 << 21  # numbers held at once


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
        _write_header(writer, job, metadata)
        _write_data(writer.fout[0], job)
    (folder / "Modelfile").write_text(modelfile(job, metadata), encoding="utf-8")
    info: dict[str, Any] = {"file": FILE, "context": job.context}
    held = {metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ENDS}
    if beyond := [f"{i:,}" for i in job.facts.end_ids if i not in held]:
        info["notes"] = [
            f"GGUF names {len(ENDS)} end tokens: llama.cpp ends at the others ({', '.join(beyond)}) "
            "only where it knows their text; the Modelfile names the special ones"
        ]
    return info


def _write_header(writer: Any, job: Job, metadata: dict[str, Any]) -> None:
    """Metadata and the list of the tensors, from their shapes alone."""
    from gguf import GGML_QUANT_SIZES

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
    names = names_of(ARCHITECTURES[job.config.architecture].name)
    for name, entry in job.weights.entries.items():
        kind = _kind(name, entry)
        block, size = GGML_QUANT_SIZES[kind]
        count = math.prod(entry.shape) // block * size
        writer.add_tensor_info(theirs(names, name), entry.shape, np.dtype(np.float32), count, kind)
    if (divisors := _divisors(job.config)) is not None:
        writer.add_tensor_info(ROPE, divisors.shape, divisors.dtype, divisors.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


def _write_data(file: IO[bytes], job: Job) -> None:
    """The tensors in the order of the header. The writer's own way would hold each of them whole."""
    entries = job.weights.entries
    done, total = 0, sum(math.prod(entry.shape) for entry in entries.values())
    for name in entries:
        _align(file)
        for rows, piece in _pieces(job, name):
            file.write(np.ascontiguousarray(piece).data)
            done += rows * math.prod(entries[name].shape[1:])
            job.progress(name, done, total)
    if (divisors := _divisors(job.config)) is not None:
        _align(file)
        file.write(divisors.data)
    _align(file)


def _align(file: IO[bytes]) -> None:
    file.write(bytes(-file.tell() % 32))


def _hyperparameters(config: DecoderConfig, weights: Weights) -> dict[str, Any]:
    import gguf

    bits = [weights.entries[name].bits for name in config.linears() if name != "head"]
    kinds = gguf.LlamaFileType
    most = {4: kinds.MOSTLY_Q4_0, 8: kinds.MOSTLY_Q8_0, 16: kinds.MOSTLY_F16}[max(set(bits), key=bits.count)]
    mixer, mlp, architecture = config.attentions[0], config.layers[0].mlp, ARCHITECTURES[config.architecture]
    rotary = architecture.rotary(config)
    of = {
        "num_hidden_layers": len(config.layers),
        "hidden_size": config.hidden,
        "intermediate_size": mlp.width,
        "num_attention_heads": mixer.heads,
        "num_key_value_heads": mixer.kv_heads,
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


def _divisors(config: DecoderConfig) -> np.ndarray | None:
    """A scaled rotary embedding as llama.cpp holds it: what each frequency is divided by, float32 [head_dim / 2]. None
    where it is not scaled, or by one factor, which the metadata says."""
    rotary = ARCHITECTURES[config.architecture].rotary(config)
    if rotary.scaling is None or isinstance(rotary.scaling, LinearScaling):
        return None
    return (replace(rotary, scaling=None).frequencies() / rotary.frequencies()).astype("<f4")


def _kind(name: str, entry: Entry) -> Any:
    """The GGML type that holds a tensor as it is."""
    from gguf import GGMLQuantizationType as Kind

    if entry.bits < 16 and entry.group % BLOCK:
        raise InputError(
            "GGUF holds a scale for each 32 inputs",
            got=f"{entry.shape[1]} inputs of {name}",
            expected="a multiple of 32",
            todo="export with --quant none, or without gguf",
        )
    return Kind.F32 if _plain(name, entry) else {16: Kind.F16, 8: Kind.Q8_0, 4: Kind.Q4_0}[entry.bits]


def _plain(name: str, entry: Entry) -> bool:
    """Whether a tensor is F32."""
    return len(entry.shape) == 1 or parse(name).kind in KERNELS


def _pieces(job: Job, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """(rows, their bytes in the file), rows in llama.cpp's order.

    For some architectures llama.cpp rotates neighbours (0, 1), (2, 3), … where transformers rotates halves (0, d/2),
    (1, d/2 + 1), …: row s * d/2 + p of each q and k head, s in 0, 1, is stored at 2 p + s. In layers without rotary
    embedding too, as its converter does; the scores stay as they are.
    """
    shape, ours = job.weights.entries[name].shape, parse(name)
    woven = ARCHITECTURES[job.config.architecture].name in GGUF_WOVEN and ours.kind in ("q", "k")
    unit = job.config.attentions[0].head_dim if woven else 1
    step = max(CHUNK // math.prod(shape[1:]) // unit, 1) * unit
    for start in range(0, shape[0], step):
        piece = _stored(job.weights, name, start, min(start + step, shape[0]))
        if woven:
            heads = piece.reshape(-1, 2, unit // 2, *piece.shape[1:])
            piece = heads.swapaxes(1, 2).reshape(piece.shape)
        yield len(piece), piece


def _stored(weights: Weights, name: str, start: int, stop: int) -> np.ndarray:
    """Rows as the file holds them: float32 [rows], fp16 [rows, K], or the bytes of their blocks, uint8 [rows, …]."""
    entry = weights.entries[name]
    if entry.bits == 16:
        return weights.values(name, start, stop).astype("<f4" if _plain(name, entry) else "<f2")
    q = weights.tensor(name, start, stop)
    codes = q.codes.reshape(len(q.codes), -1, BLOCK)  # [rows, blocks, 32]
    scales = np.repeat(q.scales.astype("<f2"), entry.group // BLOCK, axis=1)[..., None].view(np.uint8)
    packed = pack_q4_0(codes) if entry.bits == 4 else codes.view(np.uint8)
    return np.concatenate([scales, packed], axis=2).reshape(len(codes), -1)


def pack_q4_0(codes: np.ndarray) -> np.ndarray:
    """int8 [..., 32] in -8…7 -> uint8 [..., 16]: code + 8, the first half in the low nibbles."""
    biased = (codes + np.int8(8)).view(np.uint8)
    return biased[..., :16] | biased[..., 16:] << 4


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
