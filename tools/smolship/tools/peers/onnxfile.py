"""ONNX decoders of whatever maker, by ONNX Runtime: inputs by their names, caches bound once where a graph allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from smolship.runtime.session import Session


def open_onnx(path: Path, options: dict[str, Any], threads: int, shared: bool) -> Session:
    """Open a decoder. `shared`: its attention writes into the past's buffer (GroupQueryAttention), else past and
    present lie apart and grow."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    settings.enable_mem_pattern = False  # as in our own engine: it would be planned anew for each length
    settings.log_severity_level = 3
    model = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return (SharedBuffers if shared else Growing)(model, options)


class OnnxFile(Session):
    """One model; what its inputs are called says what they are."""

    def __init__(self, model: Any, options: dict[str, Any]):
        super().__init__(options["vocab"], options["context"])
        self.model, self.binding = model, model.io_binding()
        self.inputs = {value.name: value for value in model.get_inputs()}
        outputs = [value.name for value in model.get_outputs()]
        self.ids, self.mask, self.positions = (
            next((name for name in self.inputs if part in name), "") for part in ("input_ids", "mask", "position")
        )
        self.pasts = [name for name in self.inputs if name not in (self.ids, self.mask, self.positions)]
        self.logits = next(name for name in outputs if "logits" in name)
        self.presents = [name for name in outputs if name != self.logits]  # in the order of the pasts
        if len(self.pasts) != len(self.presents):
            raise ValueError(f"{len(self.pasts)} caches go in, {len(self.presents)} come out")
        shape = self.inputs[self.pasts[0]].shape  # [1, kv_heads, T, head_dim]; not every maker names the sizes
        sizes = shape[1] if type(shape[1]) is int else options["kv_heads"], options["head_dim"]
        self.cache_shape = lambda length: (1, sizes[0], length, sizes[1])

    def _bind_tokens(self, ids: np.ndarray, position: int) -> None:
        end = position + len(ids)
        self.binding.bind_cpu_input(self.ids, ids[None])
        if self.mask:
            self.binding.bind_cpu_input(self.mask, np.ones((1, end), np.int64))
        if self.positions:
            self.binding.bind_cpu_input(self.positions, np.arange(position, end)[None])
        self.binding.bind_output(self.logits, "cpu")

    def _last(self, index: int) -> np.ndarray:
        logits: np.ndarray = self.binding.get_outputs()[index].numpy()
        return logits.reshape(-1, logits.shape[-1])[-1, : self.vocab]

    def close(self) -> None:
        self.binding = self.model = None


class SharedBuffers(OnnxFile):
    """Past and present are one buffer; the mask's length says how much of it holds."""

    def __init__(self, model: Any, options: dict[str, Any]):
        import onnxruntime

        super().__init__(model, options)
        for past, present in zip(self.pasts, self.presents, strict=True):
            cache = onnxruntime.OrtValue.ortvalue_from_shape_and_type(self.cache_shape(self.capacity), np.float32)
            self.binding.bind_ortvalue_input(past, cache)
            self.binding.bind_ortvalue_output(present, cache)

    def _run(self, ids: np.ndarray, position: int) -> np.ndarray:
        self._bind_tokens(ids, position)
        self.model.run_with_iobinding(self.binding)
        return self._last(len(self.presents))  # bound before the logits


class Growing(OnnxFile):
    """Each step hands its presents to the next as pasts."""

    def __init__(self, model: Any, options: dict[str, Any]):
        super().__init__(model, options)
        self.caches: list[Any] = [np.zeros(self.cache_shape(0), np.float32) for _ in self.pasts]

    def _run(self, ids: np.ndarray, position: int) -> np.ndarray:
        self.binding.clear_binding_outputs()
        self._bind_tokens(ids, position)
        for past, present, cache in zip(self.pasts, self.presents, self.caches, strict=True):
            if isinstance(cache, np.ndarray):
                self.binding.bind_cpu_input(past, cache)
            else:
                self.binding.bind_ortvalue_input(past, cache)
            self.binding.bind_output(present, "cpu")
        self.model.run_with_iobinding(self.binding)
        self.caches = self.binding.get_outputs()[1:]
        return self._last(0)

    def rewind(self, to: int) -> None:
        super().rewind(to)
        self.caches = [
            np.ascontiguousarray((c if isinstance(c, np.ndarray) else c.numpy())[:, :, :to]) for c in self.caches
        ]
