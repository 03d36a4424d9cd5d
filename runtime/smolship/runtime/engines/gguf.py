"""llama.cpp, through llama-cpp-python's low-level interface: one model, one context, one sequence.

The cache is fp16, as llama.cpp's is by default. Its flash attention is left out: on the CPU it sums in fp16 when it
decodes and in fp32 when it prefills, so that no one arithmetic describes it.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from smolship.runtime.chunks import chunk_for
from smolship.runtime.engines.gguf_cache import read_layer, write_layers
from smolship.runtime.errors import InputError, missing_engine
from smolship.runtime.files import inside, regular_file
from smolship.runtime.forgetful import ForgetfulSession
from smolship.runtime.readback.gguf import window_layers
from smolship.runtime.session import Session

MAX_CONTEXT = 1 << 24
CHUNK = 512  # the most tokens of one call
VERSIONS = (2, 3)
COUNT_LIMIT = 1 << 20  # tensors or keys of one file
ERROR = 4  # of llama.cpp's log levels
KEPT = 20  # lines of the log
INT32S = ctypes.POINTER(ctypes.c_int32)


def open_session(folder: Path, info: dict[str, Any], threads: int) -> Session:
    """Open `info["file"]` in `folder` with a cache for `info["context"]` tokens."""
    path, context = inside(folder, str(info.get("file"))), info.get("context")
    if type(context) is not int or not 1 <= context <= MAX_CONTEXT:
        raise InputError("the manifest gives no usable context", got=context, expected=f"1 to {MAX_CONTEXT:,} tokens")
    llama = _library()
    model = _open_model(llama, path)
    with _log(llama) as said:
        options = llama.llama_context_default_params()
        chunk = chunk_for(CHUNK, max(llama.llama_model_n_head(model), 1), context, 4)
        options.n_ctx, options.n_batch, options.n_ubatch = context, chunk, chunk
        options.n_outputs_max = 1
        options.n_threads = options.n_threads_batch = threads
        options.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        options.offload_kqv = options.op_offload = False
        options.no_perf = True
        options.swa_full = False  # what lies far behind a window is not kept
        handle = llama.llama_init_from_model(model, options)
        if not handle:
            llama.llama_model_free(model)
            raise InputError(
                "llama.cpp cannot make a cache for the model",
                got=f"{context:,} tokens: {' '.join(said)}",
                todo="export with a smaller --context",
            )
    return GgufSession(llama, path, model, handle, context, chunk)


class GgufSession(ForgetfulSession):
    """One sequence, at the positions that the session names. llama.cpp's cache is cut where the session goes on.

    Of layers that see a window it keeps that and as much as one call takes; of convolutions, the state behind the last
    token alone.
    """

    def __init__(self, llama: Any, path: Path, model: Any, context: Any, capacity: int, chunk: int = CHUNK):
        super().__init__(llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model)), capacity)
        self.llama, self.path, self.model, self.context = llama, path, model, context
        self.chunk = chunk
        self.memory = llama.llama_get_memory(context)
        self.window: int = llama.llama_model_n_swa(model)  # 0: none
        self.convolves = bool(llama.llama_model_is_hybrid(model) or llama.llama_model_is_recurrent(model))
        self.presets = not self.convolves
        self.computes = computes(llama.llama_print_system_info())
        self.tokenizer: LlamaTokenizer | None = LlamaTokenizer(llama, model)

    @property
    def _held(self) -> int:
        return int(self.llama.llama_memory_seq_pos_max(self.memory, 0)) + 1

    def _decode(self, tokens: np.ndarray, position: int) -> np.ndarray:
        tokens = tokens.astype(np.int32)
        places = np.arange(position, position + len(tokens), dtype=np.int32)
        batch = self.llama.llama_batch_get_one(tokens.ctypes.data_as(INT32S), len(tokens))
        batch.pos = places.ctypes.data_as(INT32S)
        with _log(self.llama) as said:
            status = self.llama.llama_decode(self.context, batch)
        if status:
            self.llama.llama_memory_seq_rm(self.memory, 0, 0 if self.convolves else position, -1)
            raise InputError(
                "llama.cpp cannot run the model", got=f"status {status}: {' '.join(said)}", todo="export it again"
            )
        logits: np.ndarray = np.ctypeslib.as_array(self.llama.llama_get_logits_ith(self.context, -1), (self.vocab,))
        return logits

    @property
    def _reach(self) -> int:
        """The earliest position that sees all of its window, and the state behind which convolutions are."""
        if self.convolves:
            return self._held
        first: int = self.llama.llama_memory_seq_pos_min(self.memory, 0)
        return first + self.window - 1 if self.window and first > 0 else 0

    def _drop(self, to: int) -> None:
        if not self.llama.llama_memory_seq_rm(self.memory, 0, to, -1):
            raise InputError(
                "llama.cpp cannot rewind this model",
                got=f"position {to:,}",
                expected="a model whose cache can be cut anywhere",
            )

    def cache(self, layer: int) -> tuple[np.ndarray, np.ndarray] | None:
        if self.convolves:
            return None
        heads = self.llama.llama_model_n_head_kv(self.model)
        return read_layer(self._state(), self._slides, layer, self.position, heads, self._interleaved)

    def _state(self) -> bytes:
        """What llama.cpp saves of the sequence."""
        size = self.llama.llama_state_seq_get_size(self.context, 0)
        state = (ctypes.c_uint8 * size)()
        size = self.llama.llama_state_seq_get_data(self.context, state, size, 0)
        return bytes(state)[:size]

    @cached_property
    def _slides(self) -> list[bool]:
        """Which layers see a window: llama.cpp keeps those in a cache of their own, and does not tell."""
        layers = self.llama.llama_model_n_layer(self.model)
        return window_layers(self.path, layers) if self.window else [False] * layers

    @property
    def _interleaved(self) -> bool:
        found: bool = self.llama.llama_model_rope_type(self.model) == self.llama.LLAMA_ROPE_TYPE_NORM
        return found

    def _preset(self, layers: Sequence[np.ndarray], count: int) -> None:
        if not count:
            return
        self._run(np.zeros(1, np.int64), 0)  # a state to see how llama.cpp lays it out
        state = write_layers(self._state(), self._slides, layers, count, self.window, self._interleaved)
        self._cut(0)
        data = (ctypes.c_uint8 * len(state)).from_buffer(state)
        with _log(self.llama) as said:
            if self.llama.llama_state_seq_set_data(self.context, data, len(state), 0) != len(state):
                raise ValueError(" ".join(said) or "llama.cpp does not take the state")

    def close(self) -> None:
        if self.context:
            self.llama.llama_free(self.context)
            self.llama.llama_model_free(self.model)
        self.context = self.model = self.memory = self.tokenizer = None


class LlamaTokenizer:
    """llama.cpp's own, of an open model."""

    name = "llama.cpp"

    def __init__(self, llama: Any, model: Any):
        self.llama, self.vocab = llama, llama.llama_model_get_vocab(model)
        value = ctypes.create_string_buffer(8)
        llama.llama_model_meta_val_str(model, b"tokenizer.ggml.add_space_prefix", value, len(value))
        self.prefixes = value.value == b"true"  # a space before each text

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Token ids; `special` adds what the model wants around a text. Special tokens in the text are always found."""
        raw, room = text.encode(), len(text.encode()) + 8
        with _log(self.llama):  # it warns of a second BOS
            while True:
                out = (ctypes.c_int32 * room)()
                count = self.llama.llama_tokenize(self.vocab, raw, len(raw), out, room, special, True)
                if count >= 0:
                    return out[:count]
                room = max(-count, 2 * room)

    def decode(self, ids: Sequence[int]) -> str:
        """Their text as programs show it that write each token as it comes (llama_detokenize leaves out spaces before
        punctuation for some vocabularies); nothing for special tokens."""
        text = b"".join(map(self._piece, ids)).decode(errors="replace")
        return text.removeprefix(" ") if self.prefixes else text

    def _piece(self, token: int) -> bytes:
        room = 64
        while True:
            out = ctypes.create_string_buffer(room)
            count = self.llama.llama_token_to_piece(self.vocab, token, out, room, 0, False)
            if count >= 0:
                return out.raw[:count]
            room = max(-count, 2 * room)


class GgufTokenizer(LlamaTokenizer):
    """The same of a GGUF file, whose weights are not read."""

    def __init__(self, path: Path):
        llama = _library()
        model = _open_model(llama, path, vocab_only=True)
        super().__init__(llama, model)
        self.close = weakref.finalize(self, llama.llama_model_free, model)


def computes(features: bytes) -> str | None:
    """What is otherwise than the probes simulate, by what llama.cpp says it was compiled for; None where nothing is."""
    return "sums of fp16 products in fp16" if b"FP16_VA = 1" in features else None


def _library() -> Any:
    try:
        import llama_cpp
    except ImportError as error:
        raise missing_engine("llama_cpp", "gguf", error) from None
    llama_cpp.llama_backend_init()
    return llama_cpp


def _open_model(llama: Any, path: Path, vocab_only: bool = False) -> Any:
    _check_head(path, regular_file(path, "GGUF file"))
    options = llama.llama_model_default_params()
    options.n_gpu_layers, options.vocab_only = 0, vocab_only
    with _log(llama) as said:
        model = llama.llama_model_load_from_file(os.fsencode(path), options)
    if not model:
        raise _bad(path, " ".join(said))
    return model


def _bad(path: Path, why: str) -> InputError:
    return InputError(
        "not a model that llama.cpp can open",
        got=f"{why or 'no reason given'} in {path}",
        expected="a model.gguf as smolship writes it",
        todo="export it again",
    )


def _check_head(path: Path, size: int) -> None:
    """Magic number, version and counts, before native code sees the file."""
    with path.open("rb") as file:
        head = file.read(24)
    if len(head) < 24 or head[:4] != b"GGUF":
        raise _bad(path, "it does not begin as a GGUF file does")
    version = int.from_bytes(head[4:8], "little")
    tensors, keys = (int.from_bytes(head[i : i + 8], "little") for i in (8, 16))
    if version not in VERSIONS or max(tensors, keys) > COUNT_LIMIT or 24 * tensors + 12 * keys > size:
        raise _bad(path, f"it has version {version} and claims {tensors:,} tensors and {keys:,} keys")


@contextmanager
def _log(llama: Any) -> Iterator[list[str]]:
    """Catches what llama.cpp would print; its errors, line by line, are what the block gets."""
    said: list[str] = []

    def keep(level: int, text: bytes, data: Any) -> None:
        if level == ERROR and len(said) < KEPT:
            said.append(text.decode(errors="replace").strip())

    callback = llama.llama_log_callback(keep)
    llama.llama_log_set(callback, None)
    try:
        yield said
    finally:
        llama.llama_log_set(_silence(llama), None)


@cache
def _silence(llama: Any) -> Any:
    """What stays when nobody listens; kept, for llama.cpp calls it as long as the process lives."""
    return llama.llama_log_callback(lambda level, text, data: None)
