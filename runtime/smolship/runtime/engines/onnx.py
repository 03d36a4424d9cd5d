"""ONNX Runtime on the CPU: past and present share one buffer a layer, bound once."""

from __future__ import annotations

import math
import platform
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smolship.runtime.engines import BY_PROCESSOR, SIMULATED
from smolship.runtime.engines.onnx_windows import Kept, evicting
from smolship.runtime.errors import InputError, missing_engine
from smolship.runtime.files import inside, read_bytes, regular_file
from smolship.runtime.forgetful import ForgetfulSession
from smolship.runtime.memory import cpu_features
from smolship.runtime.native import native_path
from smolship.runtime.process import SPIN_US, waiting
from smolship.runtime.session import Session, over_and_over

BLOCKS = SIMULATED["onnx"]
ROWS, FLOAT32 = BY_PROCESSOR["onnx"]
MAX_CONTEXT = MAX_SIZE = 1 << 24
LINE = 64  # bytes
GRAPH_LIMIT = 64 << 20  # bytes; weights lie beside it
# Tokens of one call: activations of longer ones would be held at once, 1.5 GB of them for 16,384 tokens of a 3B model.
# ONNX Runtime's attention goes through the keys in blocks, so that the context does not matter here.
CHUNK = 512
DATA_FOLDER = "session.model_external_initializers_file_folder_path"


def open_session(folder: Path, info: dict[str, Any], threads: int) -> Session:
    """Open `info["file"]` in `folder` with a cache for `info["context"]` tokens. Arm's kernels of the name KleidiAI are
    left out where `info["kleidiai"]` is False.

    ONNX Runtime itself refuses external data outside the folder, by `..`, absolute paths or links, and data that ends
    too early.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_engine("onnxruntime", "onnx", error) from None
    path, context = inside(folder, str(info.get("file"))), _context(info)
    for file in (path, path.with_name(f"{path.name}.data")):
        regular_file(file, "ONNX model")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.enable_mem_pattern = False  # it would be planned anew for each length of the mask: 8 % of decode
    options.log_severity_level = 4  # refusals come as exceptions
    options.add_session_config_entry("session.intra_op.allow_spinning", "0" if waiting() == "asleep" else "1")
    if waiting() == "briefly":
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    kleidiai = info.get("kleidiai") is not False
    if not kleidiai:
        options.add_session_config_entry("mlas.disable_kleidiai", "1")
    graph, windows = evicting(read_bytes(path, "ONNX model", GRAPH_LIMIT), context - CHUNK - 1)
    try:
        with native_path(path) as name:
            source: str | bytes = str(name)
            if windows:
                options.add_session_config_entry(DATA_FOLDER, str(name.parent))
                source = graph
            model = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except _refusals() as error:
        raise InputError(
            "ONNX Runtime cannot open the model",
            got=f"{error} in {path}",
            expected="a model.onnx as smolship writes it",
            todo="export it again",
        ) from None
    session = OnnxSession(model, context, info.get("head_dims"), windows)
    session.computes = products(platform.machine(), cpu_features(), kleidiai)
    return session


def products(machine: str, features: Collection[str], kleidiai: bool) -> str:
    """How ONNX Runtime 1.32 multiplies with int4 weights at accuracy level 4, by the processor; measured on x86-64 and,
    emulated, on Cortex-A72 and A76."""
    if machine not in ("aarch64", "arm64"):
        return BLOCKS
    if "asimddp" not in features:
        return FLOAT32
    return ROWS if kleidiai else BLOCKS


def _refusals() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a file that it cannot use; its exceptions have no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
    )


def _context(info: dict[str, Any]) -> int:
    context = info.get("context")
    if type(context) is not int or not 1 <= context <= MAX_CONTEXT:
        raise InputError("the manifest gives no usable context", got=context, expected=f"1 to {MAX_CONTEXT:,} tokens")
    return context


def _check_heads(sizes: Any, kept: list[int]) -> None:
    sound = isinstance(sizes, list) and len(sizes) == len(kept)
    if not sound or any(type(size) is not int or not 1 <= size <= most for size, most in zip(sizes, kept, strict=True)):
        raise InputError(
            "the manifest gives no usable sizes of the heads", got=sizes, expected=f"one for each layer, at most {kept}"
        )


def _buffer(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros that start on a cache line: numpy's own start anywhere, at 6 % of decode."""
    size = math.prod(shape) * 4
    try:
        raw = np.zeros(size + LINE, np.uint8)  # memory is taken page by page, as the buffer fills
    except (MemoryError, ValueError) as error:
        raise InputError(
            "the cache does not fit into memory", got=error, todo="export with a smaller --context"
        ) from None
    start = -raw.ctypes.data % LINE
    return raw[start : start + size].view(np.float32).reshape(shape)


class OnnxSession(ForgetfulSession):
    """One model with buffers of its own: a step allocates neither caches nor logits.

    The length of the attention mask says how much of the cache holds, and of the states of convolutions, which keep
    what they were given at every position. Layers that see a window keep that and as much as one call takes, where that
    is less than the context; without such layers rewinding costs nothing.

    head_dims  of the model, by layer that attends, where the cache keeps longer heads, filled up with zeros
    windows    of the layers that do not keep all, by the name of the keys' input
    """

    presets = True

    def __init__(self, model: Any, context: int, head_dims: Any = None, windows: Mapping[str, int] | None = None):
        inputs = {value.name: value.shape for value in model.get_inputs()}
        outputs = {value.name: value.shape for value in model.get_outputs()}
        pasts = [name for name in inputs if name.startswith("past_key_values.")]
        presents = [name.replace("past_key_values", "present") for name in pasts]
        if set(inputs) != {"input_ids", "attention_mask", *pasts} or set(outputs) != {"logits", *presents}:
            raise InputError(
                "the model's inputs and outputs are not those of a decoder with a cache",
                got=[*inputs, *outputs],
                expected="input_ids, attention_mask, past_key_values.*, logits, present.*",
            )
        states = {name: inputs[name] for name in pasts}
        sizes = [outputs["logits"][-1], *(n for s in states.values() for n in (s[1::2] if len(s) == 4 else s[1:]))]
        if any(type(size) is not int or not 1 <= size <= MAX_SIZE for size in sizes):
            raise InputError(
                "the model's sizes cannot be used",
                got=sizes,
                expected="the vocabulary, key/value heads and head size as numbers",
            )
        if any(len(s) not in (3, 4) or (len(s) == 3 and s[1] <= context) for s in states.values()):
            raise InputError(
                "the model's states are not those of attentions, or of convolutions over the whole context",
                got=states,
                expected=f"[batch, heads, past, size], or [batch, more than {context:,}, width]",
            )
        kept = [s[3] for s in states.values() if len(s) == 4][::2]
        _check_heads(kept if head_dims is None else head_dims, kept)
        heads = iter(np.repeat(kept if head_dims is None else head_dims, 2).tolist())
        super().__init__(outputs["logits"][-1], context)
        self.chunk, self.held = CHUNK, 0
        self.kept = {name.split(".")[1]: Kept(window, window + CHUNK) for name, window in (windows or {}).items()}
        self.blocks = tuple(sorted({kept.rows for kept in self.kept.values()}))  # beyond them, rows are given up
        self.model, self.binding, self.refusals = model, model.io_binding(), _refusals()
        self.mask = np.ones(context, np.int64)  # the mask of T tokens is its first T
        self.logits = _buffer((1, 1, self.vocab))
        self._bind(self.binding.bind_output, "logits", self.logits, self.logits.shape)
        lengths = {name: self.kept[layer].rows for name in pasts if (layer := name.split(".")[1]) in self.kept}
        self.caches = [
            _buffer((1, s[1], lengths.get(name, context), s[3]) if len(s) == 4 else (1, *s[1:]))
            for name, s in states.items()
        ]
        # By layer, the numbers of the positions that it keeps, [T, G, K]; a convolution has zeros before the first.
        self.layers: dict[str, list[np.ndarray]] = {}
        for past, present, cache in zip(pasts, presents, self.caches, strict=True):
            self._bind(self.binding.bind_input, past, cache, cache.shape)
            self._bind(self.binding.bind_output, present, cache, cache.shape)
            self.layers.setdefault(past.split(".")[1], []).append(
                cache[0, :, :, : next(heads)].swapaxes(0, 1) if cache.ndim == 4 else cache[0, -context:, None]
            )

    def _bind(self, bind: Any, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
        """Bind the first numbers of `array`, as many as `shape` holds. The array must outlive the binding."""
        bind(name, "cpu", 0, array.dtype, shape, array.ctypes.data)

    @property
    def _held(self) -> int:
        return self.held

    @property
    def _reach(self) -> int:
        return max((kept.reach(self.held) for kept in self.kept.values()), default=0)

    def _decode(self, tokens: np.ndarray, position: int) -> np.ndarray:
        end = position + len(tokens)
        self._bind(self.binding.bind_input, "input_ids", tokens, (1, len(tokens)))
        self._bind(self.binding.bind_input, "attention_mask", self.mask, (1, end))
        self.held = 0 if self.kept else end  # a call that breaks off may have moved the rows
        try:
            self.model.run_with_iobinding(self.binding)
        except self.refusals as error:
            raise InputError("ONNX Runtime cannot run the model", got=error, todo="export it again") from None
        self.held = end
        return self.logits[0, 0]

    def _drop(self, to: int) -> None:
        self.held = to  # within reach, rows are where ONNX Runtime looks for them

    def cache(self, layer: int) -> tuple[np.ndarray, ...] | None:
        kept = self.kept.get(str(layer))
        if kept and kept.first(self.position):
            return None
        return tuple(place[: self.position].copy() for place in self.layers[str(layer)])

    def _preset(self, layers: Sequence[np.ndarray], count: int) -> None:
        for layer, (name, places) in zip(layers, self.layers.items(), strict=True):
            first = self.kept[name].first(count) if name in self.kept else 0
            for part, place in zip(layer, places, strict=True):
                if not first:
                    over_and_over(part, place[:count])
                    continue
                whole = np.empty((count, *place.shape[1:]), np.float32)
                over_and_over(part, whole)
                place[: count - first] = whole[first:]
        self.held = count

    def close(self) -> None:
        self.binding = self.model = None
        self.caches, self.layers = [], {}
