"""What each form of each matrix costs: the KL divergence from the original's answers, to second order.

A matrix W that is rounded to W + dW changes its output for the input x by dW x. With g the gradient of log p(y) by that
output, of a label y drawn from the model's own distribution, E[(g . dW x)^2] is twice the KL divergence that this
causes, for the Fisher information is the Hessian of the KL divergence (Martens 2014, "New insights and perspectives on
the natural gradient method", arXiv:1412.1193; Amari 1998). Terms between the tokens of a text are left out. Of the
head, whose outputs are the logits, it is computed without drawing: the variance of dW x over the distribution.

The model is passed a layer at a time: forward with the states between layers kept, and backward from the last one. Of
the weights, a layer or a table is in memory.

T tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from smolship.export.bits.units import Costs
from smolship.export.calibrate.held import Held
from smolship.export.calibrate.limits import LOGITS
from smolship.export.calibrate.ops import Batched, Ops, back, product
from smolship.export.calibrate.pool import Pool
from smolship.export.calibrate.sampled import draw
from smolship.export.config import DecoderConfig
from smolship.export.decoder import Decoder
from smolship.export.freed import trim
from smolship.export.quantize import quantize
from smolship.export.slots import row_chunks
from smolship.export.weights import Form, Source

CHUNK = 1 << 21  # numbers of a matrix that are rounded at once


class Watched(Ops):
    """The primitives, with what each product is of: (name, input, output)."""

    def __init__(self, config: DecoderConfig, get: Callable[[str], Tensor], positions: int):
        super().__init__(config, get, positions)
        self.seen: list[tuple[str, Tensor, Tensor]] = []

    def linear(self, names: Sequence[str], x: Tensor) -> list[Tensor]:
        outputs = super().linear(names, x)
        self.seen += [(name, x.detach().flatten(0, -2), y) for name, y in zip(names, outputs, strict=True)]
        return outputs


class Sensitivity:
    """Measured on the windows `ids` [windows, S], of the `forms` of each matrix."""

    def __init__(
        self,
        config: DecoderConfig,
        source: Source,
        forms: Mapping[str, Sequence[Form]],
        ids: Tensor,
        seed: int,
        pool: Pool,
    ):
        self.config, self.forms, self.ids, self.seed, self.pool = config, forms, ids, seed, pool
        self.held = Held(source, config.shapes(), pool.device)
        self.costs: Costs = {name: dict.fromkeys(found, 0.0) for name, found in forms.items()}

    def run(self, progress: Callable[[str, float], None]) -> Costs:
        """KL in nats a token. `progress` takes what is done and the share of the work that was done since."""
        count = len(self.config.layers)
        with torch.no_grad():
            ops = Batched(Ops(self.config, self.held, self.ids.shape[1]), self.pool)
            decoder, states = Decoder(self.config, ops), list[Tensor]()
            states.append(decoder.begin(self.ids))
            for i in range(count):
                delta, x = decoder.layer(i, states[-1], None, torch.tensor([0]))
                states.append(delta + x)
                self.held.forget(f"layers.{i}.")
                progress(f"forward, layer {i + 1} of {count}", 0.2 / count)
        gradient = self._head(states.pop())
        progress("head", 0.1)
        for i in reversed(range(count)):
            gradient = self._layer(i, states.pop(), gradient)
            self.held.forget(f"layers.{i}.")
            progress(f"backward, layer {i + 1} of {count}", 0.65 / count)
        self._embedding(gradient)
        progress("embedding", 0.05)
        self.held.forget("")
        return self.costs

    def _head(self, hidden: Tensor) -> Tensor:
        """The gradient of the drawn labels' log p by hidden states [windows, S, D] behind the last layer."""
        config, table = self.config, self.held(self.config.head)
        ops, factor = Ops(config, self.held, hidden.shape[1]), config.logits_scale
        ops.get("norm")
        chances = np.random.default_rng([self.seed, 2]).random(tuple(self.ids.shape), np.float32)
        rows = max(1, LOGITS // len(table))

        def window(i: int) -> tuple[Tensor, Tensor, Tensor]:
            with torch.enable_grad():
                given = hidden[i : i + 1].detach().requires_grad_()
                normed = ops.rms_norm("norm", given, None, config.norm_eps)[0]
            x, chance = normed.detach()[0], torch.from_numpy(chances[i]).to(hidden.device)
            gradient, sums = torch.empty_like(x), []
            with torch.no_grad():
                for part, drawn, out in zip(x.split(rows), chance.split(rows), gradient.split(rows), strict=True):
                    logits = product(part, table).mul_(factor)
                    sums.append(logits.logsumexp(-1))
                    label = draw(logits, drawn)
                    off = torch.softmax(logits, -1).neg_()
                    off[torch.arange(len(label), device=off.device), label] += 1
                    out.copy_(back(off, table).mul_(factor))
            return x, torch.cat(sums), torch.autograd.grad(normed, given, gradient[None])[0]

        found = list(self.pool.map(window, range(len(hidden))))
        if config.head in self.forms:
            x, sums = torch.cat([one[0] for one in found]), torch.cat([one[1] for one in found])
            self._logits(config.head, table, x, sums)
        if config.head != "embed":
            self.held.forget(config.head)
        return torch.cat([one[2] for one in found])

    def _logits(self, name: str, table: Tensor, x: Tensor, sums: Tensor) -> None:
        """Half the variance of the logits' changes, over the distribution whose log-sum-exps are `sums` [T]."""
        factor, rows = self.config.logits_scale, max(1, LOGITS // (4 * len(x)))

        def part(start: int) -> list[Tensor]:
            weight = table[start : start + rows]
            share = (product(x, weight).mul_(factor) - sums[:, None]).exp_()
            moments = []
            for off in self._roundings(name, weight):
                change = product(x, off).mul_(factor)
                first = (share * change).sum(-1, dtype=torch.float64)
                moments += [first, (share * change.square_()).sum(-1, dtype=torch.float64)]
            trim(share.numel() * (1 + len(moments)))
            return moments

        with torch.no_grad():
            total = [sum(column) for column in zip(*self.pool.map(part, range(0, len(table), rows)), strict=True)]
        for i, form in enumerate(self._rounded(name)):
            first, second = total[2 * i], total[2 * i + 1]
            self.costs[name][form] += float((second - first.square()).mean()) / 2

    def _layer(self, i: int, hidden: Tensor, gradient: Tensor) -> Tensor:
        """The gradient by the layer's hidden states, from that by the next ones."""
        for name in self.config.shapes():
            if name.startswith(f"layers.{i}."):
                self.held(name)  # read once, by all threads

        def window(at: int) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
            with torch.enable_grad():
                given = hidden[at : at + 1].detach().requires_grad_()
                ops = Watched(self.config, self.held, hidden.shape[1])
                delta, x = Decoder(self.config, ops).layer(i, given, None, torch.tensor([0]))
                outputs = [y for _, _, y in ops.seen]
                first, *others = torch.autograd.grad(delta + x, [given, *outputs], gradient[at : at + 1])
            seen = zip(ops.seen, others, strict=True)
            return first, {name: (taken, dy.flatten(0, -2)) for (name, taken, _), dy in seen}

        found = list(self.pool.map(window, range(len(hidden))))
        trim(CHUNK * len(found))
        for name in found[0][1]:
            if name in self.forms:
                self._products(name, *(torch.cat([one[1][name][j] for one in found]) for j in (0, 1)))
        return torch.cat([one[0] for one in found])

    def _products(self, name: str, x: Tensor, dy: Tensor) -> None:
        """Of a matrix that is given x [T, in], dy [T, out] being the gradient by its output."""
        weight = self.held(name)

        def part(rows: tuple[int, int]) -> list[Tensor]:
            at = slice(*rows)
            return [
                (product(x, off) * dy[:, at]).sum(-1, dtype=torch.float64) for off in self._roundings(name, weight[at])
            ]

        with torch.no_grad():
            parts = self.pool.map(part, row_chunks(weight.shape[0], weight.shape[1], CHUNK))
            self._add(name, [sum(column) for column in zip(*parts, strict=True)])

    def _embedding(self, gradient: Tensor) -> None:
        """Of the rows that the text takes: what is looked up is off by the rounding."""
        if "embed" not in self.forms:
            return
        with torch.no_grad():
            taken, places = self.ids.flatten().unique(return_inverse=True)
            flat = gradient.flatten(0, 1) * self.config.embedding_scale
            offs = self._roundings("embed", self.held("embed")[taken])
            self._add("embed", [(off[places] * flat).sum(-1, dtype=torch.float64) for off in offs])

    def _add(self, name: str, changes: Sequence[Tensor]) -> None:
        """The changes [T] of log p by each form."""
        for form, change in zip(self._rounded(name), changes, strict=True):
            self.costs[name][form] += float(change.square().mean()) / 2

    def _rounded(self, name: str) -> list[Form]:
        """Forms that cost something; that fp16 rounds, too, is left out."""
        return [form for form in self.forms[name] if form[0] < 16]

    def _roundings(self, name: str, weight: Tensor) -> list[Tensor]:
        """What each form adds to rows of a matrix."""
        rows = weight.cpu().numpy()
        offs = [quantize(rows, bits, group, name).dequantize() - rows for bits, group in self._rounded(name)]
        return [torch.from_numpy(off).to(weight.device) for off in offs]
