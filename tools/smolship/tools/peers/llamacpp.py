"""llama.cpp: its own quantizer on an F16 GGUF, and `llama_decode` without the Python wrapper around it.

The F16 file is ours (`--quant none`), since llama.cpp's converter is a script that no package holds; its tensors are
the checkpoint's, rounded to fp16. It is thrown away when the quantizer has read it.
"""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from smolship.runtime.session import Session

REQUIREMENTS: tuple[str, ...] = ()
OURS = True
VERSIONS = ("llama-cpp-python",)
PACKAGES = ("llama_cpp",)
FILE_TYPES = {
    "Q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0",
    "Q4_K_M": "LLAMA_FTYPE_MOSTLY_Q4_K_M",
    "IQ4_XS": "LLAMA_FTYPE_MOSTLY_IQ4_XS",
    "Q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0",
}


def export(source: Path, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    import llama_cpp as lib

    from smolship.export import export as run

    params = lib.llama_model_quantize_default_params()
    params.ftype = getattr(lib, FILE_TYPES[options["type"]])
    if "imatrix" in options:
        params.imatrix = _importance(Path(options["imatrix"]))
    context = options["context"]
    bundle = run(source, folder / "f16", to=["gguf"], quant="none", context=context, probe_tokens=0, cache=False)
    wide = bundle.path / bundle.entry("gguf").folder / bundle.entry("gguf").info["file"]
    if lib.llama_model_quantize(str(wide).encode(), str(folder / "model.gguf").encode(), ctypes.byref(params)):
        raise RuntimeError("llama_model_quantize failed")
    shutil.rmtree(folder / "f16")
    return {"files": ["model.gguf"], "peak_bytes": max(s.peak_bytes or 0 for s in bundle.manifest.steps.values())}


def _importance(path: Path) -> Any:
    """An importance matrix (name -> float32 [in], an npz file) as the quantizer takes it: an array that ends with an
    entry without a name."""
    import llama_cpp as lib

    with np.load(path, allow_pickle=False) as file:
        found = {name: np.ascontiguousarray(file[name], np.float32) for name in file.files}
    entries = (lib.llama_model_imatrix_data * (len(found) + 1))()
    for entry, (name, values) in zip(entries, found.items(), strict=False):
        entry.name, entry.size = name.encode(), values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    entries.kept = found  # the numbers live as long as the entries that point to them
    return entries


def open_session(folder: Path, options: dict[str, Any], threads: int) -> Session:
    return LlamaSession(folder / "model.gguf", options, threads)


class LlamaSession(Session):
    """One model and one context; its position is that of llama.cpp's own memory."""

    def __init__(self, path: Path, options: dict[str, Any], threads: int):
        import llama_cpp as lib

        super().__init__(options["vocab"], options["context"])
        self.lib = lib
        lib.llama_backend_init()
        self.runtime = lib.llama_print_system_info().decode().strip(" |")
        self.model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = self.capacity
        params.n_threads = params.n_threads_batch = threads
        self.context = self.model and lib.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp cannot open {path}")

    def _run(self, ids: np.ndarray, position: int) -> np.ndarray:
        tokens = (self.lib.llama_token * len(ids))(*ids.tolist())
        if self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(tokens, len(ids))):
            raise RuntimeError("llama_decode failed")
        return np.ctypeslib.as_array(self.lib.llama_get_logits_ith(self.context, -1), (self.vocab,))

    def rewind(self, to: int) -> None:
        super().rewind(to)
        self.lib.llama_memory_seq_rm(self.lib.llama_get_memory(self.context), 0, to, -1)

    def close(self) -> None:
        self.lib.llama_free(self.context)
        self.lib.llama_model_free(self.model)
