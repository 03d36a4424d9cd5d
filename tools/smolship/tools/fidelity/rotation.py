"""What a rotation of the residual stream would be worth where activations are rounded: measured, and not exported.

    python -P -m smolship.tools.fidelity.rotation MODEL

ExecuTorch's XNNPACK rounds what a matrix takes to 8 bits, with one scale a token; a few large channels of the residual
stream then cost all others precision. Multiplied by an orthogonal matrix (QuaRot's R1: Ashkboos et al. 2024,
arXiv:2404.00456) it has no such channels, and the model says the same: the gains of norms move into the matrices behind
them, and the rotation into all that reads and writes the stream. It costs nothing at run time but a table: a head that
was the embedding's is one of its own, for the last norm's gain lies in it alone.

That is exact where norms stand before the attention and the MLP. Behind them (Gemma 3, OLMo 2) a norm's gain stands
between a matrix and the stream, where nothing can take it in. There the rotation is put in front of each matrix that
reads the stream, which an engine would have to compute: the row says "at run time".
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from rich.text import Text
from torch import Tensor

from smolship.export.checkpoints import Checkpoint, open_checkpoint
from smolship.export.config import DecoderConfig
from smolship.export.numerics import Numerics
from smolship.export.targets.executorch.arithmetic import Tokens
from smolship.export.weights import SCHEMES, Source, write_weights
from smolship.runtime.tensors import parse
from smolship.runtime.tokenizer import Tokenizer
from smolship.tools.console import Screen, begin, exit_code
from smolship.tools.display import Steps
from smolship.tools.failures import asks_json
from smolship.tools.fidelity.bootstrap import Interval, mean
from smolship.tools.fidelity.judge import Judge, windows
from smolship.tools.fidelity.table import interval
from smolship.tools.fidelity.texts import texts
from smolship.tools.tables import plain_table

READS = {
    "q": "attn_norm",
    "k": "attn_norm",
    "v": "attn_norm",
    "gate": "mlp_norm",
    "up": "mlp_norm",
}  # behind which norm
WRITES = ("o", "down")
UNTURNED = torch.empty(0)


def orthogonal(size: int, seed: int = 0) -> np.ndarray:
    """A random rotation, float64 [size, size]: signs, and a Hadamard matrix of the largest power of 2 that divides the
    size, times a random one for the rest."""
    random = np.random.default_rng(seed)
    power = size & -size
    hadamard = np.ones((1, 1))
    while len(hadamard) < power:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    rest, _ = np.linalg.qr(random.standard_normal((size // power, size // power)))
    return np.kron(rest, hadamard / math.sqrt(power)) * random.choice([-1.0, 1.0], size)


def reads_stream(name: str) -> bool:
    """Whether a tensor is a matrix that takes the residual stream, behind a norm."""
    kind = parse(name)
    return (kind.kind in READS or kind.kind == "head") and not kind.bias


def in_the_weights(config: DecoderConfig) -> bool:
    """Whether the rotation can lie in the weights alone."""
    return all(layer.norms == "before" for layer in config.layers)


class Rotated:
    """A checkpoint with the rotation in its weights, or, for models whose norms do not allow it, with its inverse in
    the matrices that read the stream."""

    def __init__(self, source: Source, config: DecoderConfig, seed: int = 0):
        self.source, self.exact = source, in_the_weights(config)
        self.tied, self.config = config.tied_head, replace(config, tied_head=False)
        self.turn = orthogonal(config.hidden, seed)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """x @ turn.T is the rotated stream."""
        kind, turn = parse(name), self.turn
        table = "embed" if kind.kind == "head" and self.tied else name
        if not self.exact:
            stored = self.source.read(table, start, stop)
            return _single(stored @ turn.T) if reads_stream(name) else stored
        if kind.kind in ("attn_norm", "mlp_norm", "norm"):
            return np.ones_like(self.source.read(name, start, stop))
        if kind.kind in WRITES:
            return _single(turn[start:stop] @ self.source.read(name))
        if kind.bias or len(self.config.shapes()[name]) == 1:
            return self.source.read(name, start, stop)
        return _single(self.source.read(table, start, stop) * self.gain(kind.kind, kind.layer) @ turn.T)

    def gain(self, kind: str, layer: int | None) -> np.ndarray | float:
        """Of the norm that a matrix of that kind stands behind."""
        if kind == "embed":
            return 1.0
        return self.source.read("norm" if kind == "head" else f"layers.{layer}.{READS[kind]}").astype(np.float64)


def _single(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)


@dataclass(frozen=True)
class Turning(Numerics):
    """x is rotated at run time."""

    turn: Tensor = UNTURNED

    def round(self, x: Tensor) -> Tensor:
        return x @ self.turn


@dataclass(frozen=True)
class Turned(Tokens):
    """x is rotated at run time, then rounded to 8 bits."""

    turn: Tensor = UNTURNED

    def round(self, x: Tensor) -> Tensor:
        return super().round(x @ self.turn)


class Trial:
    """int4 weights of a model, as it is and rotated, with activations in fp32 and in 8 bits a token."""

    def __init__(self, checkpoint: Checkpoint, tokens: int, longest: int, update: Callable[..., None]):
        self.checkpoint, self.update = checkpoint, update
        tokenizer = Tokenizer(checkpoint.files["tokenizer.json"])
        self.texts = windows(tokenizer, texts().judging, tokens, longest)

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.checkpoint, self.texts, self._positions("original"))

    def run(self, group: int) -> dict[str, Interval]:
        """KL of each, by what it is."""
        config, plain = self.checkpoint.config, Plain(self.checkpoint)
        rotated = Rotated(plain, config)
        where = "in the weights" if rotated.exact else "at run time"
        turned: tuple[Callable[[str], Numerics], Callable[[str], Numerics]] = _wide, _eight
        if not rotated.exact:
            turn = torch.from_numpy(_single(rotated.turn.T))
            turned = partial(_turned, Turning(turn=turn), Numerics()), partial(_turned, Turned(turn=turn), Tokens())
        found = {"rotated, fp32 weights": self._kl("exactness", rotated.config, rotated, turned[0])}
        for name, one, source, rounds in (
            ("as it is", config, plain, (_wide, _eight)),
            (f"rotated {where}", rotated.config, rotated, turned),
        ):
            with tempfile.TemporaryDirectory() as folder:
                scheme = replace(SCHEMES["int4"], group=group)
                weights = write_weights(source, one, scheme, Path(folder), partial(self.update, f"int4, {name}"))
                for acts, numerics in zip(("fp32", "8-bit"), rounds, strict=True):
                    found[f"{name}, {acts} activations"] = self._kl(f"{name}, {acts}", one, weights, numerics)
        return found

    def _kl(self, step: str, config: DecoderConfig, source: Source, numerics: Callable[[str], Numerics]) -> Interval:
        return mean(self.judge.gaps(config, source, self._positions(step), numerics))

    def _positions(self, step: str) -> Callable[[float], None]:
        done, total = 0.0, sum(map(len, self.texts))

        def more(positions: float) -> None:
            nonlocal done
            done += positions
            self.update(step, "", int(done), total)

        return more


class Plain:
    """The values of a checkpoint: nothing is lifted, so that both sets are rounded by the same rule."""

    def __init__(self, checkpoint: Checkpoint):
        self.read = checkpoint.read


def _wide(name: str) -> Numerics:
    return Numerics()


def _eight(name: str) -> Numerics:
    return Tokens()


def _turned(behind: Numerics, other: Numerics, name: str) -> Numerics:
    """Of a matrix that reads the stream, behind the rotation; of another."""
    return behind if reads_stream(name) else other


def main() -> int:
    begin()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="A checkpoint: a folder, or a GGUF file.")
    parser.add_argument("--tokens", type=int, default=4096, help="Tokens that are judged. Default: 4096.")
    parser.add_argument("--longest", type=int, default=256, help="Tokens of one document. Default: 256.")
    parser.add_argument("--group-size", type=int, choices=(32, 64, 128), default=32)
    parser.add_argument("--json", action="store_true", help="Print JSON on standard output, and no more there.")
    options, err = parser.parse_args(), Screen(stderr=True)

    def command() -> int:
        with Steps(err) as steps:
            trial = Trial(open_checkpoint(options.model), options.tokens, options.longest, steps.update)
            found = trial.run(options.group_size)
        if options.json:
            print(json.dumps({name: asdict(kl) for name, kl in found.items()}, indent=1))
            return 0
        table = plain_table(Text(f"{Path(options.model).name}, int4, groups of {options.group_size}", "bold"), None)
        table.add_column("")
        table.add_column("KL", justify="right")
        for name, kl in found.items():
            table.add_row(Text(name), interval(kl))
        Screen().print(table)
        return 0

    return exit_code(command, err, asks_json(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
