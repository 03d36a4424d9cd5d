"""ExecuTorch's Python runtime, for the .pte files that the executorch target writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from smolship.runtime.errors import InputError, missing_engine
from smolship.runtime.files import inside, regular_file
from smolship.runtime.session import Session

METADATA = ("get_vocab_size", "get_max_context_len", "get_max_seq_len")


def open_session(folder: Path, info: dict[str, Any], threads: int) -> Session:
    """Open the artifact in `folder`; `info` is its entry in the manifest."""
    path = inside(folder, info["file"])
    regular_file(path, "ExecuTorch program")
    try:
        import executorch.extension.llm.custom_ops.custom_ops
        import executorch.kernels.quantized  # noqa: F401  (both register kernels that the file calls)
        from executorch.extension.pybindings import portable_lib
    except ImportError as error:
        raise missing_engine("executorch", "executorch", error) from None
    import torch

    torch.set_num_threads(1)  # its pool would fight with ExecuTorch's for the same cores
    portable_lib._unsafe_reset_threadpool(threads)
    try:
        module = portable_lib._load_for_executorch(str(path))
        module.method_meta("forward")
        numbers = [
            module.run_method(name, ())[0] for name in ("get_vocab_size", "get_max_context_len", "get_max_seq_len")
        ]
    except RuntimeError as error:
        raise InputError("not a program that ExecuTorch can open", got=f"{error} in {path}",
                         expected="a model.pte that smolship wrote", todo="export it again") from None  # fmt: skip
    return ExecuTorchSession(module, *numbers)


class ExecuTorchSession(Session):
    """One loaded program. The cache lies inside it, and is written at the position that each call names."""

    def __init__(self, module: Any, vocab: int, capacity: int, chunk: int):
        super().__init__(vocab, capacity)
        self.module, self.chunk = module, chunk

    def _run(self, ids: np.ndarray, position: int) -> np.ndarray:
        import torch

        inputs = torch.from_numpy(ids)[None], torch.tensor([position])
        logits = self.module.run_method("forward", inputs, clone_outputs=False)[0]  # [1, 1, V]
        result: np.ndarray = logits.numpy().reshape(-1)
        return result

    def close(self) -> None:
        self.module = None
