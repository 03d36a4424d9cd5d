"""The model a layer at a time: the matrices of each are quantized on the inputs that the quantized layers before it
give, and its scales and gains are then trained to give what the original's layer gives, where that is wanted.

Three streams of hidden states [windows, S, D] pass: the original's, the calibrated model's, and that of the set as it
was, for the windows that judge. Of the weights one layer is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smolship.export.calibrate.asked import Effort
from smolship.export.calibrate.compensate import Hessian, compensate, inverse_root
from smolship.export.calibrate.distil import Trained, draw_order, layer_loss, off, train
from smolship.export.calibrate.held import Calibrated, Held
from smolship.export.calibrate.limits import LOGITS, PASSING
from smolship.export.calibrate.ops import Batched, Ops, product
from smolship.export.calibrate.pool import Pool
from smolship.export.calibrate.state import State
from smolship.export.config import DecoderConfig
from smolship.export.decoder import Decoder
from smolship.export.quantize import QuantTensor
from smolship.export.weights import Source, Weights


@dataclass
class Streams:
    """Hidden states behind the last layer passed: the original's, the calibrated set's, the set's as it was."""

    original: Tensor
    ours: Tensor
    before: Tensor


class _Met(Exception):
    """Matrices have met their inputs: the rest of the layer need not be passed."""


class Layers:
    """The pass of all windows `ids` [windows, S], of which the first `fitted` are fitted to and the others judge.

    spilled  of a model that is not trained whole, a folder for codes: then each layer is trained as it is passed
    """

    def __init__(
        self,
        config: DecoderConfig,
        source: Source,
        base: Weights,
        ids: Tensor,
        fitted: int,
        effort: Effort,
        seed: int,
        pool: Pool,
        state: State,
        spilled: Path | None = None,
    ):
        self.config, self.base, self.ids, self.fitted = config, base, ids, fitted
        self.effort, self.seed, self.pool, self.state = effort, seed, pool, state
        self.spilled, self.trains = spilled, spilled is not None
        self.found = Calibrated(base)
        shapes, device = config.shapes(), pool.device
        self.original, self.ours = Held(source, shapes, device), Held(self.found, shapes, device)
        self.before = Held(base, shapes, device)
        self.plain = 0  # matrices whose inputs have no Hessian to invert

    def run(self, progress: Callable[[str, float], None]) -> Streams:
        """`progress` takes what is done and the share of all layers that was done since."""
        count = len(self.config.layers)
        streams, first = self._begin()
        progress(f"layer {first} of {count}", first / count)
        for i in range(first, count):
            aim = self._through(self.original, streams.original, i)
            ours = self._quantize(i, streams.ours)
            self.original.forget(f"layers.{i}.")
            if self.trains:
                ours = self._train(i, streams.ours, ours, aim)
            self.ours.forget(f"layers.{i}.")
            streams = Streams(aim, ours, self._through(self.before, streams.before, i))
            self.before.forget(f"layers.{i}.")
            self._keep(i)
            self._spill(i)
            if self.state.due() or i == count - 1:
                arrays = {name: tensor.cpu().numpy() for name, tensor in vars(streams).items()}
                self.state.save("streams", layers=np.array(i + 1), **arrays)
            progress(f"layer {i + 1} of {count}", 1 / count)
        return streams

    def divergence(self, wanted: Tensor, said: Tensor, ours: Held) -> float:
        """Mean KL over hidden states [windows, S, D], what the head of `ours` says of them against the original's."""
        config = self.config
        with torch.no_grad():
            wanted, said = self.normed(self.original, wanted).flatten(0, 1), self.normed(ours, said).flatten(0, 1)
            theirs, own = self.original(config.head), ours(config.head)
            rows = max(1, LOGITS // config.vocab)

            def part(pair: tuple[Tensor, Tensor]) -> float:
                a, b = (
                    torch.log_softmax(product(x, head) * config.logits_scale, -1)
                    for x, head in zip(pair, (theirs, own), strict=True)
                )
                return float((a.exp() * (a - b)).sum(dtype=torch.float64))

            total = sum(self.pool.map(part, zip(wanted.split(rows), said.split(rows), strict=True)))
        return total / len(wanted)

    def normed(self, held: Held, x: Tensor) -> Tensor:
        """What the head takes of hidden states behind the last layer."""
        with torch.no_grad():
            return self._ops(held).rms_norm("norm", x, None, self.config.norm_eps)[0]

    def hidden(self, held: Held, ids: Tensor) -> Tensor:
        """Hidden states of windows behind the last layer."""
        x = Decoder(self.config, self._ops(held)).begin(ids)
        for i in range(len(self.config.layers)):
            x = self._through(held, x, i)
            held.forget(f"layers.{i}.")
        return x

    def _ops(self, held: Held) -> Ops:
        return Ops(self.config, held, self.ids.shape[1])

    def _begin(self) -> tuple[Streams, int]:
        """Behind the layers that an interrupted run has done."""
        if (saved := self.state.load("streams")) is not None:
            first = int(saved["layers"])
            if all(self._restore(i) for i in range(first)):
                original, ours, before = (
                    torch.from_numpy(saved[name]).to(self.pool.device) for name in ("original", "ours", "before")
                )
                return Streams(original, ours, before), first
            self.found.matrices.clear()
            self.found.vectors.clear()
        begun = [
            Decoder(self.config, self._ops(held)).begin(ids)
            for held, ids in ((self.original, self.ids), (self.ours, self.ids), (self.before, self.ids[self.fitted :]))
        ]
        for held in (self.original, self.ours, self.before):
            held.forget("embed")
        return Streams(*begun), 0

    def _through(
        self, held: Held, x: Tensor, i: int, see: Callable[[Sequence[str], Tensor], None] | None = None
    ) -> Tensor:
        """Hidden states behind layer `i`."""
        with torch.no_grad():
            ops, after = Batched(self._ops(held), self.pool, see), torch.empty_like(x)
            for at in self._groups(i, len(x)):
                delta, rest = Decoder(self.config, ops).layer(i, x[at], None, torch.tensor([0]))
                assert rest is not None
                torch.add(delta, rest, out=after[at])
        return after

    def _groups(self, i: int, count: int) -> list[slice]:
        """Windows that pass through layer `i` at once: the MLP holds four arrays of its width."""
        size = max(1, PASSING // (16 * self.ids.shape[1] * self.config.layers[i].mlp.width))
        return [slice(start, start + size) for start in range(0, count, size)]

    def _quantize(self, i: int, x: Tensor) -> Tensor:
        """Quantize layer `i` on its inputs, and pass them through it."""
        groups, done = self._groups(i, len(x)), set[str]()
        if len(groups) == 1:

            def see(names: Sequence[str], given: Tensor) -> None:
                if open_ := [name for name in names if self.movable(name)]:
                    found = Hessian(given.shape[-1], self.pool)
                    found.add(given[: self.fitted].flatten(0, 1))
                    self._round(open_, found)

            return self._through(self.ours, x, i, see)
        while found := self._met(i, x[: self.fitted], done):  # one pass for each input that matrices share
            self._round(*found)
            done.update(found[0])
        return self._through(self.ours, x, i)

    def _met(self, i: int, x: Tensor, done: set[str]) -> tuple[list[str], Hessian] | None:
        """The next matrices of layer `i` that are not `done`, and the Hessian of what they meet; None: all are."""
        open_: list[str] = []
        found: list[Hessian] = []

        def see(names: Sequence[str], given: Tensor) -> None:
            if left := [name for name in names if self.movable(name) and name not in done]:
                open_[:] = left
                found[:] = found or [Hessian(given.shape[-1], self.pool)]
                found[0].add(given.flatten(0, 1))
                raise _Met

        decoder = Decoder(self.config, Batched(self._ops(self.ours), self.pool, see))
        for at in self._groups(i, len(x)):
            with torch.no_grad(), suppress(_Met):
                decoder.layer(i, x[at], None, torch.tensor([0]))
        return (open_, found[0]) if found else None

    def _round(self, open_: Sequence[str], found: Hessian) -> None:
        """Matrices that share their inputs, onto the grid."""
        root = inverse_root(found.whole())
        if root is None:
            self.plain += len(open_)
            return
        for bits, group in dict.fromkeys(self.found.grid(name) or (16, 0) for name in open_):
            alike = [name for name in open_ if self.found.grid(name) == (bits, group)]
            whole = torch.cat([self.original(name) for name in alike])  # they share their inputs
            q = compensate(whole, root, bits, group, self.pool)
            del whole
            at = 0
            for name in alike:
                rows = slice(at, at + self.base.entries[name].shape[0])
                self.found.matrices[name] = QuantTensor(q.codes[rows], q.scales[rows], bits, group)
                at = rows.stop

    def round_head(self, hidden: Tensor, wanted: Tensor) -> None:
        """The head of 4 bits, on hidden states [windows, S, D] behind the last layer; at 8 bits nothing is to be had.
        It stays as it was where, on the windows that judge, the whole comes no nearer to what is `wanted`: where it is
        the embedding's table, too, texts are looked up in what was rounded for the head."""
        head, judging = self.config.head, self.ids[self.fitted :]
        if not self.movable(head) or self.base.entries[head].bits != 4:
            return
        found = Hessian(self.config.hidden, self.pool)
        found.add(self.normed(self.ours, hidden).flatten(0, 1))
        gaps = []
        for rounds in (False, True):
            if rounds:
                self._round([head], found)
                self.ours.forget(head)
            gaps.append(self.divergence(wanted, self.hidden(self.ours, judging), self.ours))
        if not gaps[1] < gaps[0]:
            self.found.matrices.pop(head, None)
            self.ours.forget(head)

    def movable(self, name: str) -> bool:
        """Whether a matrix's codes and scales may change: not what was lifted, nor what is not quantized."""
        return self.base.entries[name].origin == "quantized"

    def trainable(self, i: int | None = None) -> tuple[list[str], list[str]]:
        """Matrices whose scales, and vectors whose gains move, of a layer, or of all with the tables."""
        of = "" if i is None else f"layers.{i}."
        every = dict.fromkeys(["embed", *self.config.linears()])
        matrices = [name for name in every if name.startswith(of) and self.movable(name)]
        gains = [name for name in self.config.vectors() if not name.endswith(".bias")]
        return matrices, [name for name in gains if name.startswith(of)]

    def _train(self, i: int, given: Tensor, ours: Tensor, aim: Tensor) -> Tensor:
        """Hidden states behind the layer with what training changed, or `ours` where, on the windows that judge, they
        are no nearer to those that it aims at."""
        matrices, gains = self.trainable(i)
        before = {name: self.found.matrices[name] for name in matrices if name in self.found.matrices}
        trained = Trained(self.found, matrices, gains, self.ours, self.pool)
        order = draw_order(self.fitted, self.effort.layer_steps, self.effort.batch, self.seed + i)
        loss = layer_loss(self.config, i, given, aim)
        train(self.config, trained, loss, self.ids.shape[1], order, State(None), "", lambda _: None)
        trained.store(self.found)
        self.ours.forget(f"layers.{i}.")
        after = self._through(self.ours, given, i)
        if bool(off(after[self.fitted :], aim[self.fitted :]) < off(ours[self.fitted :], aim[self.fitted :])):
            return after
        for name in (*matrices, *gains):
            self.found.matrices.pop(name, None)
            self.found.vectors.pop(name, None)
        self.found.matrices |= before
        return ours

    def _keep(self, i: int) -> None:
        matrices, vectors = self.trainable(i)
        arrays = {f"{name}.codes": self.found.matrices[name].codes for name in matrices if name in self.found.matrices}
        arrays |= {
            f"{name}.scales": self.found.matrices[name].scales for name in matrices if name in self.found.matrices
        }
        arrays |= {name: self.found.vectors[name] for name in vectors if name in self.found.vectors}
        self.state.save(f"layer-{i}", **arrays)

    def _spill(self, i: int) -> None:
        if self.spilled is not None:
            self.found.spill(self.trainable(i)[0], self.spilled)

    def _restore(self, i: int) -> bool:
        saved = self.state.load(f"layer-{i}")
        if saved is None:
            return False
        for name, value in saved.items():
            matrix, _, part = name.rpartition(".")
            if part == "codes":
                bits, group = self.found.grid(matrix) or (16, 0)
                self.found.matrices[matrix] = QuantTensor(value, saved[f"{matrix}.scales"], bits, group)
            elif part != "scales":
                self.found.vectors[name] = value
        self._spill(i)
        return True
