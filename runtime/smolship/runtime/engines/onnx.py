"""ONNX Runtime on the CPU: past and present share one buffer a layer, bound once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from smolship.runtime.errors import InputError, missing_engine
from smolship.runtime.files import inside, regular_file
from smolship.runtime.session import Session

MAX_CONTEXT = 1 << 24


def open_session(folder: Path, info: dict[str, Any], threads: int) -> Session:
    """Open `info["file"]` in `folder` with a cache for `info["context"]` tokens."""
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise missing_engine("onnxruntime", "onnx", error) from None
    path = inside(folder, str(info.get("file")))
    regular_file(path, "ONNX model")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    refusals = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile,
                state.NotImplemented, state.RuntimeException)  # fmt: skip
    try:
        model = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except refusals as error:
        raise InputError("ONNX Runtime cannot open the model", got=f"{error} in {path}",
                         expected="a model.onnx as smolship writes it", todo="export it again") from None  # fmt: skip
    return OnnxSession(model, _context(info))


def _context(info: dict[str, Any]) -> int:
    context = info.get("context")
    if type(context) is not int or not 1 <= context <= MAX_CONTEXT:
        raise InputError("the manifest gives no usable context", got=context, expected=f"1 to {MAX_CONTEXT:,} tokens")
    return context


class OnnxSession(Session):
    """One model with buffers of its own: a step allocates neither caches nor logits.

    Rewinding costs nothing: the length of the attention mask says how much of the cache holds.
    """

    def __init__(self, model: Any, context: int):
        inputs = {value.name: value.shape for value in model.get_inputs()}
        outputs = {value.name: value.shape for value in model.get_outputs()}
        pasts = [name for name in inputs if name.startswith("past_key_values.")]
        presents = [name.replace("past_key_values", "present") for name in pasts]
        if set(inputs) != {"input_ids", "attention_mask", *pasts} or set(outputs) != {"logits", *presents}:
            raise InputError("the model's inputs and outputs are not those of a decoder with a cache",
                             got=[*inputs, *outputs], expected="input_ids, attention_mask, past_key_values.*, "
                             "logits, present.*")  # fmt: skip
        super().__init__(outputs["logits"][-1], context)
        self.model, self.binding = model, model.io_binding()
        self.mask = np.ones(context, np.int64)  # the mask of T tokens is its first T
        self.logits = np.empty((1, 1, self.vocab), np.float32)
        self._bind(self.binding.bind_output, "logits", self.logits, self.logits.shape)
        self.caches = [np.zeros((1, inputs[name][1], context, inputs[name][3]), np.float32) for name in pasts]
        for past, present, cache in zip(pasts, presents, self.caches, strict=True):
            self._bind(self.binding.bind_input, past, cache, cache.shape)
            self._bind(self.binding.bind_output, present, cache, cache.shape)

    def _bind(self, bind: Any, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
        """Bind the first numbers of `array`, as many as `shape` holds. The array must outlive the binding."""
        bind(name, "cpu", 0, array.dtype, shape, array.ctypes.data)

    def _run(self, ids: np.ndarray, position: int) -> np.ndarray:
        self._bind(self.binding.bind_input, "input_ids", ids, (1, len(ids)))
        self._bind(self.binding.bind_input, "attention_mask", self.mask, (1, position + len(ids)))
        self.model.run_with_iobinding(self.binding)
        return self.logits[0, 0]

    def close(self) -> None:
        self.binding = self.model = None
        self.caches = []
