"""What nobody refused on purpose, as one of our errors: a package that is missing, a machine that falls short, or a
fault of ours, whose traceback goes into a file."""

from __future__ import annotations

import errno
import os
import re
import signal
import tempfile
import traceback

from smolship.runtime.errors import Fault, SetupError, SmolshipError, clip

# Package -> the extra that brings it; "" is the base install.
EXTRAS = {
    "accelerate": "export",
    "coremltools": "coreml",
    "executorch": "executorch",
    "gguf": "export",
    "google": "coreml",
    "huggingface_hub": "export",
    "jinja2": "",
    "llama_cpp": "gguf",
    "markupsafe": "",
    "numpy": "",
    "packaging": "",
    "onnx": "onnx",
    "onnx_ir": "onnx",
    "onnxruntime": "onnx",
    "rich": "",
    "safetensors": "export",
    "tokenizers": "",
    "torch": "export",
    "torchao": "executorch",
    "transformers": "export",
    "typer": "",
}
SPELLINGS = {"pytorch": "torch", "protobuf": "google"}  # of those packages in messages
SHORT = {
    errno.ENOMEM: "out of memory",
    errno.EAGAIN: "no more processes can be started",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.EIO: "a disk cannot be read or written",
    errno.ESTALE: "a disk cannot be read or written",
}


def as_ours(error: Exception, where: str = "") -> SmolshipError:
    """`error` as what a user reads. `where` says what was being done."""
    if isinstance(error, SmolshipError):
        return error
    if isinstance(error, MemoryError):
        return _out_of_memory(error)
    if isinstance(error, ImportError) and (package := _package(error)) is not None:
        extra = EXTRAS[package]
        return SetupError(
            f"{error.name or package} cannot be imported",
            got=error,
            todo="pip install " + (f"'smolship[{extra}]'" if extra else "--force-reinstall smolship"),
        )
    if isinstance(error, OSError) and error.errno in SHORT:
        if error.errno == errno.ENOMEM:
            return _out_of_memory(error)
        return SetupError(SHORT[error.errno], got=error, todo="see to it, then run it again")
    return fault(traceback.format_exception_only(error)[-1].strip(), "".join(traceback.format_exception(error)), where)


def fault(what: str, log: str, where: str = "") -> Fault:
    """A fault of ours in one line; `log` goes into a file that only this user can read."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="smolship-fault-", suffix=".txt")  # mode 0600
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(log)
    except OSError as error:
        name = f"what it said (no file could be written: {clip(error, 100)})"
    return Fault(
        f"a fault of smolship itself{' in ' * bool(where)}{where}: {clip(what, 200)}; please report it, with {name}"
    )


def _out_of_memory(error: Exception) -> SetupError:
    return SetupError("out of memory", got=str(error) or None, todo="close other programs, or use a larger machine")


def _package(error: ImportError) -> str | None:
    """The package of `EXTRAS` that could not be imported, None where it was something else."""
    if error.name and (top := error.name.partition(".")[0]) in EXTRAS:
        return top
    if error.name and error.name.partition(".")[0] == "smolship":
        return None
    for word in re.findall(r"\w+", str(error)):  # "AutoModel requires the PyTorch library but …"
        if (name := SPELLINGS.get(word.lower(), word.lower())) in EXTRAS and EXTRAS[name]:
            return name
    files = " ".join(frame.filename for frame in traceback.extract_tb(error.__traceback__))
    inner = [name for name in re.findall(r"(?:site|dist)-packages[/\\](\w+)", files) if name in EXTRAS]
    return inner[-1] if inner else None  # it is there, and broken


def ended(who: str, status: int, log: str) -> SmolshipError:
    """The error for a child that ended without an answer: a fault of ours where Python ended it with a traceback,
    else something that the machine or native code did to it."""
    if status == 1 and "Traceback (most recent call last)" in log:
        return fault(log.strip().splitlines()[-1], log, who)
    got = f"exit status {status}"
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        got += f", {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return SetupError(
        f"{who} ended without a result",
        got=got,
        todo="see the end of its log below\n" + "\n".join(log.splitlines()[-12:]),
    )
