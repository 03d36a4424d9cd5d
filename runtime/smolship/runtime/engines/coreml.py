"""Core ML: Apple's runtime on a Mac, and everywhere else an interpreter of the package in numpy.

The interpreter shows that a package says what it should, by the format's specification. It shows neither how fast
Core ML is nor how Core ML rounds.
"""

from __future__ import annotations

import platform
import re
import sys
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from smolship.runtime.errors import InputError, missing_engine, unknown
from smolship.runtime.files import inside
from smolship.runtime.mil.blas import one_thread
from smolship.runtime.mil.matrix import shared_with
from smolship.runtime.mil.program import Function, Program
from smolship.runtime.session import INTERPRETER, Session, over_and_over

ARITHMETICS = ("float16", "float32")
UNITS = ("CPU_AND_GPU", "CPU_ONLY", "CPU_AND_NE", "ALL")  # coremltools' names
FUNCTIONS = ("prefill", "decode")
STATE = re.compile(r"(keys|values|inputs)(_\d{1,3})?")  # several where layers differ in their heads, or kernels
KEYS, INPUTS = ("keys", "values"), ("inputs",)  # what the states of attentions, and of convolutions, are called
MAX_CONTEXT = 1 << 24


def open_session(folder: Path, info: dict[str, Any], threads: int) -> Session:
    """Open the package `info["file"]` in `folder`.

    info["arithmetic"]  "float16" (see mil/program.py) or "float32" ask for the interpreter, on a Mac too; where there
                        is none, a Mac runs Core ML and other systems interpret in float16
    info["units"]       where Core ML may compute: one of `UNITS`
    """
    path = inside(folder, str(info.get("file")))
    arithmetic: Any = info.get("arithmetic")
    units = info.get("units", UNITS[0])
    if arithmetic not in (None, *ARITHMETICS):
        raise unknown("arithmetic", arithmetic, ARITHMETICS)
    if units not in UNITS:
        raise unknown("compute units", units, UNITS)
    if sys.platform == "darwin" and arithmetic is None:
        return CoreMLSession(path, units)
    program = Program(path, "float32" if arithmetic == "float32" else "float16")
    return InterpreterSession(program, threads, info.get("layers", ()), info.get("convolutions", ()))


class _Decoder(Session):
    """What both have in common: whole chunks go through `prefill`, the rest token by token through `decode`.

    sizes  tokens of one call of each function
    """

    sizes: dict[str, int]

    def _run(self, ids: np.ndarray, position: int) -> np.ndarray:
        chunk, at = self.sizes["prefill"], 0
        while at < len(ids):
            name = "prefill" if len(ids) - at >= chunk else "decode"
            count = self.sizes[name]
            inputs = {
                "input_ids": ids[None, at : at + count].astype(np.int32),
                "position": np.array([position + at], np.int32),
            }
            logits = self._call(name, inputs)
            at += count
        return logits.reshape(-1)

    @abstractmethod
    def _call(self, name: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Run the function `name` -> logits [1, 1, V]."""


class InterpreterSession(_Decoder):
    """A package run by the interpreter. Rewinding costs nothing: what lies behind the position is never seen.

    Two threads at most share the large products; numpy's BLAS uses one while it runs (see mil/blas.py).
    """

    runtime = INTERPRETER
    presets = True

    def __init__(
        self,
        program: Program,
        threads: int = 1,
        layers: Sequence[Sequence[int]] = (),
        convolutions: Sequence[Sequence[int]] = (),
    ):
        """`layers` of each state, where there are several; those of states of `convolutions` by themselves."""
        self.program = program
        self.helper = ThreadPoolExecutor(1) if threads > 1 else None
        functions = {name: program.function(name) for name in FUNCTIONS}
        self.sizes, vocab, capacity = _sizes(functions)
        self.blocks = (self.sizes["prefill"],)
        super().__init__(vocab, capacity)
        try:
            self.state = functions["decode"].new_state()
        except MemoryError as error:
            raise InputError(
                "the cache does not fit into memory", got=error, todo="export with a smaller --context"
            ) from None
        self.functions = functions
        self.layers = {KEYS: layers or [range(len(self.state["keys"]))], INPUTS: convolutions}

    def _call(self, name: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
        with one_thread(), shared_with(self.helper):
            return self.functions[name](inputs, self.state)["logits"]

    @property
    def nonfinite(self) -> list[str]:
        return [f"{where}: {count:,} numbers" for where, count in self.program.nonfinite.items()]

    def cache(self, layer: int) -> tuple[np.ndarray, ...] | None:
        return tuple(part[: self.position].copy() for part in self._places(layer))

    def _places(self, layer: int) -> list[np.ndarray]:
        """Its parts of the states, [T, G, K] each; the rows of a convolution's lie behind some of zeros."""
        kinds = ((names, i, layers) for names, several in self.layers.items() for i, layers in enumerate(several))
        names, i, layers = next(kind for kind in kinds if layer in kind[2])
        parts = [self.state[f"{name}_{i}" if i else name][layers.index(layer)] for name in names]
        return [part[:, -self.capacity :].swapaxes(0, 1) for part in parts]

    def _preset(self, layers: Sequence[np.ndarray], count: int) -> None:
        if len(layers) != sum(len(one) for several in self.layers.values() for one in several):
            raise ValueError(f"{len(layers)} layers")
        for i, layer in enumerate(layers):
            for part, place in zip(layer, self._places(i), strict=True):
                over_and_over(part, place[:count])

    def close(self) -> None:
        self.functions, self.state = {}, {}
        if self.helper:
            self.helper.shutdown()
        self.program = self.helper = None  # type: ignore[assignment]


def _sizes(functions: dict[str, Function]) -> tuple[dict[str, int], int, int]:
    """Tokens of one call of each function, the vocabulary and the context; refused where this is no such decoder."""
    found = {name: _shapes(function) for name, function in functions.items()}
    sizes = {name: ids[1] for name, (ids, _, _) in found.items()}
    states, logits = found["decode"][1:]
    contexts = {shape[2] for name, shape in states.items() if not name.startswith(INPUTS)}
    if found["prefill"][1:] != (states, logits) or sizes["decode"] != 1 or len(contexts) != 1:
        raise InputError(
            "the package's functions do not belong together",
            got=[f"{tokens} tokens, states {of}, logits {out}" for tokens, of, out in found.values()],
            expected="the same states and vocabulary, one context, and one token for decode",
        )
    (context,) = contexts
    if any(shape[2] <= context for name, shape in states.items() if name.startswith(INPUTS)):
        raise InputError(
            "a convolution's state is shorter than the context", got=states, expected=f"more than {context:,} rows"
        )
    if context > MAX_CONTEXT:
        raise InputError("the package gives no usable context", got=context, expected=f"1 to {MAX_CONTEXT:,}")
    return sizes, logits[2], context


Shape = tuple[int, ...]


def _shapes(function: Function) -> tuple[Shape, dict[str, Shape], Shape]:
    """Shapes of input_ids, of the states by name, and of logits."""
    outputs = {name: function.declared(name) for name in function.outputs}
    values = {**function.inputs, **function.states, **outputs}
    shapes: dict[str, Any] = {name: declared.shape or () if declared else () for name, declared in values.items()}
    states = {name: shapes[name] for name in function.states}
    pairs = {name.removeprefix("keys") for name in states if name.startswith("keys")}
    if (
        set(function.inputs) != {"input_ids", "position"}
        or list(outputs) != ["logits"]
        or "keys" not in states
        or {name for name in states if not name.startswith(INPUTS)} != {kind + pair for kind in KEYS for pair in pairs}
        or not all(STATE.fullmatch(name) and len(shape) == 4 for name, shape in states.items())
        or any(states[f"keys{pair}"] != states[f"values{pair}"] for pair in pairs)
        or [len(shapes[name]) for name in ("input_ids", "position", "logits")] != [2, 1, 3]
        or not all(map(all, shapes.values()))
    ):
        raise InputError(
            f"function {function.name} of the package is not a decoder's",
            got=", ".join(f"{name} {declared}" for name, declared in values.items()),
            expected="input_ids [1, S], position [1], states keys, values [L, G, T, K] (and inputs [L, 1, T, D]), "
            "logits [1, 1, V]",
        )
    return shapes["input_ids"], states, shapes["logits"]


class CoreMLSession(_Decoder):
    """A package run by Core ML itself, through coremltools. Both functions share one state."""

    def __init__(self, path: Path, units: str):
        try:
            import coremltools
        except ImportError as error:
            raise missing_engine("coremltools", "coreml", error) from None
        if tuple(map(int, (platform.mac_ver()[0] or "0").split(".")[:1])) < (15,):
            raise InputError(
                "this macOS cannot run packages with a state",
                got=platform.mac_ver()[0],
                expected="15 on",
                todo="update macOS, or pass an arithmetic to use the interpreter",
            )
        spec = Program(path, "float16")  # checks the package before native code sees it
        self.sizes, vocab, capacity = _sizes({name: spec.function(name) for name in FUNCTIONS})
        self.blocks = (self.sizes["prefill"],)
        super().__init__(vocab, capacity)
        self.runtime, unit = f"Core ML, {units}", coremltools.ComputeUnit[units]
        try:
            self.models = {
                name: coremltools.models.MLModel(str(path), compute_units=unit, function_name=name)
                for name in FUNCTIONS
            }
            self.state = self.models["decode"].make_state()
        except RuntimeError as error:
            raise InputError("Core ML cannot open the package", got=error, todo="export it again") from None

    def _call(self, name: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
        try:
            made = self.models[name].predict(inputs, state=self.state)
        except RuntimeError as error:
            raise InputError("Core ML cannot run the package", got=error, todo="export it again") from None
        return np.asarray(made["logits"], np.float32)

    def close(self) -> None:
        self.models, self.state = {}, None
