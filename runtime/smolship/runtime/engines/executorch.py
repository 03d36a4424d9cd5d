"""ExecuTorch's Python runtime, for the .pte files that the executorch target writes."""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from smolship.runtime.errors import InputError, SetupError, missing_engine
from smolship.runtime.files import inside, regular_file
from smolship.runtime.native import native_path
from smolship.runtime.session import Session, over_and_over

METADATA = ("get_vocab_size", "get_max_context_len", "get_max_seq_len")
KERNELS = ("extension/llm/custom_ops/libcustom_ops_aot_lib.*", "kernels/quantized/libquantized_ops_aot_lib.*")


def open_session(folder: Path, info: dict[str, Any], threads: int) -> Session:
    """Open the artifact in `folder`; `info` is its entry in the manifest."""
    path = inside(folder, info["file"])
    _check_frame(path, regular_file(path, "ExecuTorch program"))
    with _native_log() as log, contextlib.ExitStack() as held:
        runtime = _runtime()
        held.enter_context(POOL.used(runtime, threads))
        try:
            with native_path(path) as file:
                program = runtime._load_program(str(file))
            numbers = [program.load_method(name).call(())[0] for name in METADATA]
            session = ExecuTorchSession(program, *numbers)
            session._run(np.zeros(1, np.int64), 0)  # what loads the weights; position 0 is written again by the first
        except RuntimeError as error:
            log.seek(0)
            said = [line.strip() for line in log.read().decode(errors="replace").splitlines() if "cpuinfo" not in line]
            raise _bad(path, f"{error}; {' '.join(said[-2:])}") from None
        session.release = weakref.finalize(session, held.pop_all().close)
    return session


def _bad(path: Path, why: str) -> InputError:
    return InputError(
        "not a program that ExecuTorch can open",
        got=f"{path}: {why}",
        expected="a .pte file that smolship wrote",
        todo="export it again",
    )


def _check_frame(path: Path, size: int) -> None:
    """Magic numbers and lengths. On a file without them ExecuTorch can end the process."""
    with path.open("rb") as file:
        head = file.read(40)
    if len(head) < 40 or head[4:6] != b"ET" or head[8:12] != b"eh00":
        raise _bad(path, "it does not begin as a program does")
    program, base, data = struct.unpack("<3Q", head[16:40])  # bytes of program, offset and bytes of the weights
    if not program <= base <= size or base + data != size:
        raise _bad(path, f"it has {size:,} bytes and claims {base + data:,}")


def _runtime() -> Any:
    """ExecuTorch's extension module with the kernels that our files call.

    The package's own modules would import its whole compiler first, which takes seconds and other packages.
    """
    try:
        import torch
        from executorch.extension.pybindings import _C
    except ImportError as error:
        raise missing_engine("executorch", "executorch", error) from None
    root = Path(_C.__file__).parents[2]
    for pattern in KERNELS:
        libraries = list(root.glob(pattern))
        if len(libraries) != 1:
            raise SetupError(
                "ExecuTorch is installed without its kernels",
                got=f"{len(libraries)} of {root / pattern}",
                expected="one",
                todo="pip install --force-reinstall 'smolship[executorch]'",
            )
        torch.ops.load_library(libraries[0])
    return _C


class Pool:
    """ExecuTorch's threads: one pool a process, which every open session computes with. A new size is a new pool, and
    would leave the programs that are loaded with the old one's address. torch has one thread meanwhile: its own would
    fight with these for the same cores."""

    def __init__(self) -> None:
        self.lock, self.sessions, self.threads = threading.Lock(), 0, 0

    @contextlib.contextmanager
    def used(self, runtime: Any, threads: int) -> Iterator[None]:
        """Raises InputError where another session is open with another number of threads."""
        import torch

        with self.lock:
            if not self.sessions:
                runtime._unsafe_reset_threadpool(threads)
                self.threads, self.torch = threads, torch.get_num_threads()
                torch.set_num_threads(1)
            elif threads != self.threads:
                raise InputError(
                    "ExecuTorch has one pool of threads, and another session is open with it",
                    got=f"{threads} threads",
                    expected=f"{self.threads}, as the open session has",
                    todo="close that session first, or give both as many threads",
                )
            self.sessions += 1
        try:
            yield
        finally:
            with self.lock:
                self.sessions -= 1
                if not self.sessions:
                    torch.set_num_threads(self.torch)


POOL = Pool()


class ExecuTorchSession(Session):
    """One loaded program. The cache lies inside it, and is written at the position that each call names."""

    release: Callable[[], Any] = staticmethod(lambda: None)  # gives the threads back
    presets = True
    blocks = (256,)  # tokens in the cache from which on one token, too, attends by matrix multiplications

    def __init__(self, program: Any, vocab: int, capacity: int, chunk: int):
        super().__init__(vocab, capacity)
        self.program, self.chunk = program, chunk
        self.method = program.load_method("forward")

    def _run(self, ids: np.ndarray, position: int) -> np.ndarray:
        import torch

        inputs = torch.from_numpy(ids)[None], torch.tensor([position])
        logits = self.method.call(inputs, clone_outputs=False)[0]  # [1, 1, V]
        result: np.ndarray = logits.numpy().reshape(-1)
        return result

    def cache(self, layer: int) -> tuple[np.ndarray, ...]:
        return tuple(part[: self.position].copy() for part in self._places(layer))

    def _places(self, layer: int) -> list[np.ndarray]:
        """Its state where the program has it: keys and values [T, G, K], or what a convolution was given, [T, 1, D],
        which lies behind some rows of zeros."""
        try:
            found = [self.method.get_attribute(f"{kind}.{layer}") for kind in ("keys", "values")]
        except RuntimeError:
            found = [self.method.get_attribute(f"inputs.{layer}")]
        return [part.numpy()[0, -self.capacity :] for part in found]

    def _preset(self, layers: Sequence[np.ndarray], count: int) -> None:
        with contextlib.suppress(RuntimeError):  # there must be no such layer
            self._places(len(layers))
            raise ValueError(f"{len(layers)} layers, and the program has more")
        for i, layer in enumerate(layers):
            for part, place in zip(layer, self._places(i), strict=True):
                over_and_over(part, place[:count])

    def close(self) -> None:
        self.method = self.program = None
        self.release()


@contextlib.contextmanager
def _native_log() -> Iterator[IO[bytes]]:
    """Catches what native code writes to stderr: pages of notes on a CPU that it does not know, and, where loading
    fails, why."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield log
        finally:
            os.dup2(kept, 2)
            os.close(kept)
