"""Distillation: scales and norm gains trained until the quantized model answers as the original does. Codes stay.

What is trained are the logarithms of what they are multiplied by, so that none changes its sign and one rate fits all.
(Adam, Kingma and Ba 2014, arXiv:1412.6980, with a warm-up and a cosine's end.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smolship.export.calibrate.held import Calibrated, on_grid
from smolship.export.calibrate.limits import LOGITS
from smolship.export.calibrate.ops import Get, Ops, back, by_scales, product
from smolship.export.calibrate.pool import Pool
from smolship.export.calibrate.state import State
from smolship.export.config import DecoderConfig
from smolship.export.decoder import Decoder
from smolship.export.quantize import QuantTensor, to_half

RATE, WARM_UP = 4e-4, 10  # steps, or a quarter of all where they are few
MOMENTA, TINY = (0.9, 0.95), 1e-8
FARTHEST = 1.0  # that a logarithm moves: a factor of e
LARGEST_HALF = 65504.0


class Trained:
    """Some tensors of a set, whose scales and gains are moved: `flat` are the logarithms, those of each tensor at its
    place in `logs`."""

    def __init__(self, found: Calibrated, matrices: Sequence[str], vectors: Sequence[str], others: Get, pool: Pool):
        self.others, self.pool = others, pool
        held = {name: found.lift(name) for name in matrices}
        self.formats = {name: (q.bits, q.group) for name, q in held.items()}
        self.codes = {name: torch.from_numpy(np.array(q.codes)).to(pool.device) for name, q in held.items()}
        start = {name: q.scales for name, q in held.items()} | {name: found.read(name) for name in vectors}
        self.start = {name: torch.from_numpy(np.array(value)).to(pool.device) for name, value in start.items()}
        self.flat = torch.zeros(sum(value.numel() for value in self.start.values()), device=pool.device)
        self.logs: dict[str, Tensor] = {}
        at = 0
        for name, value in self.start.items():
            self.logs[name] = self.flat[at : at + value.numel()].view(value.shape)
            at += value.numel()
        self.weights = {name: torch.empty(code.shape, device=pool.device) for name, code in self.codes.items()}

    def refresh(self) -> None:
        """The matrices as they are with the scales of the moment."""

        def multiply(name: str) -> None:
            scales = self.start[name] * self.logs[name].exp()
            grouped = self.codes[name].unflatten(1, (scales.shape[1], -1))
            torch.mul(grouped, scales[:, :, None], out=self.weights[name].view(grouped.shape))

        list(self.pool.map(multiply, self.codes))

    def get(self, leaves: dict[str, Tensor]) -> Get:
        """Tensors for `Ops`, of which gains depend on their leaves."""

        def tensor(name: str) -> Tensor:
            if name in self.weights:
                return self.weights[name]
            return self.start[name] * leaves[name].exp() if name in leaves else self.others(name)

        return tensor

    def store(self, into: Calibrated) -> None:
        """Round what came of it to the portable grid, and gains to fp16."""
        for name, log in self.logs.items():
            value = (self.start[name] * log.exp()).cpu().numpy()
            if name in self.codes:
                codes = self.codes[name].cpu().numpy()
                into.matrices[name] = QuantTensor(codes, on_grid(value), *self.formats[name])
            else:
                into.vectors[name] = to_half(value.clip(-LARGEST_HALF, LARGEST_HALF), name).astype(np.float32)


class Divergence(torch.autograd.Function):
    """The mean KL divergence of what the head says of x from what the original's says of y, each [S, D]. `log` are the
    logarithms of the head's scales, where they are trained. Logits exist for a part of the positions at a time: the
    gradients are made with them."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, head: Tensor, log: Tensor | None, y: Tensor, original: Tensor, factor: float
    ) -> Tensor:
        total, gradient, rows = x.new_zeros(()), torch.empty_like(x), max(1, LOGITS // len(head))
        by_log = None if log is None else torch.zeros_like(log)
        for part in torch.arange(len(x)).split(rows):
            at = slice(int(part[0]), int(part[-1]) + 1)
            wanted = torch.log_softmax(product(y[at], original).mul_(factor), -1)
            said = torch.log_softmax(product(x[at], head).mul_(factor), -1)
            share = wanted.exp()
            total += (share * wanted.sub_(said)).sum()
            off = said.exp_().sub_(share)
            gradient[at] = back(off, head)
            if by_log is not None:
                by_log += by_scales(off, x[at], head, by_log.shape[1])
        ctx.trains = by_log is not None
        ctx.save_for_backward(*(g.mul_(factor / len(x)) for g in (gradient, by_log) if g is not None))
        return total / len(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gradient, *by_log = (grads[0] * saved for saved in ctx.saved_tensors)
        return gradient, None, by_log[0] if ctx.trains else None, None, None, None


Loss = Callable[[Ops, int], Tensor]  # of a window, by its number


def train(
    config: DecoderConfig,
    trained: Trained,
    loss: Loss,
    length: int,
    order: Sequence[Sequence[int]],
    state: State,
    name: str,
    progress: Callable[[int], None],
) -> list[float]:
    """The mean loss of each step. `order` are the windows of each step. The state is saved as `name` now and then."""
    flat, pool = trained.flat, trained.pool
    first, second = torch.zeros_like(flat), torch.zeros_like(flat)
    losses: list[float] = []
    if (saved := state.load(name)) and saved["flat"].shape == tuple(flat.shape):
        for tensor, kept in ((flat, "flat"), (first, "first"), (second, "second")):
            tensor.copy_(torch.from_numpy(saved[kept]))
        losses = saved["losses"].tolist()
        progress(len(losses))
    steps, warm = len(order), max(1, min(WARM_UP, len(order) // 4))

    def gradient(window: int) -> tuple[float, Tensor]:
        leaves = {key: log.detach().requires_grad_() for key, log in trained.logs.items()}
        matrices = {key: leaves[key] for key in trained.codes}
        with torch.enable_grad():
            found = loss(Ops(config, trained.get(leaves), length, matrices), window)
        grads = torch.autograd.grad(found, list(leaves.values()))
        return float(found.detach()), torch.cat([grad.flatten() for grad in grads])

    for step in range(len(losses), steps):
        trained.refresh()
        total, mean = torch.zeros_like(flat), 0.0
        for one, grad in pool.map(gradient, order[step]):
            total += grad
            mean += one / len(order[step])
        if bool(total.isfinite().all()):  # else the step is passed over
            total /= len(order[step])
            first.lerp_(total, 1 - MOMENTA[0])
            second.lerp_(total.square_(), 1 - MOMENTA[1])
            rate = RATE * min(1, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps))
            unbiased = (second / (1 - MOMENTA[1] ** (step + 1))).sqrt_().add_(TINY)
            flat.addcdiv_(first, unbiased, value=-rate / (1 - MOMENTA[0] ** (step + 1))).clamp_(-FARTHEST, FARTHEST)
        losses.append(mean)
        if state.due():
            arrays = {"flat": flat, "first": first, "second": second}
            state.save(name, losses=np.array(losses), **{key: t.cpu().numpy() for key, t in arrays.items()})
        progress(1)
    return losses


def draw_order(windows: int, steps: int, batch: int, seed: int) -> list[list[int]]:
    """The windows of each step: all by turns, in another order each time."""
    random, drawn = np.random.default_rng([seed, 1]), list[int]()
    while len(drawn) < steps * batch:
        drawn += random.permutation(windows).tolist()
    return [drawn[i * batch : (i + 1) * batch] for i in range(steps)]


def answers_loss(config: DecoderConfig, ids: Tensor, wanted: Tensor, original: Tensor) -> Loss:
    """KL from the original's answers. `wanted` [windows, S, D] is what its head, `original`, takes."""

    def loss(ops: Ops, window: int) -> Tensor:
        decoder, position = Decoder(config, ops), torch.tensor([0])
        delta, x = decoder.begin(ids[window : window + 1]), None
        for i in range(len(config.layers)):
            delta, x = decoder.layer(i, delta, x, position)
        normed, _ = ops.rms_norm("norm", delta, x, config.norm_eps)
        head, log = ops.get(config.head), ops.logs.get(config.head)
        return Divergence.apply(normed[0], head, log, wanted[window], original, config.logits_scale)

    return loss


def layer_loss(config: DecoderConfig, i: int, given: Tensor, wanted: Tensor) -> Loss:
    """The squared error of layer `i`'s output for what it is given [windows, S, D], relative to what is wanted."""

    def loss(ops: Ops, window: int) -> Tensor:
        at = slice(window, window + 1)
        delta, x = Decoder(config, ops).layer(i, given[at], None, torch.tensor([0]))
        assert x is not None
        return off(delta + x, wanted[at])

    return loss


def off(x: Tensor, aim: Tensor) -> Tensor:
    """The squared error of hidden states, relative to what they aim at."""
    return ((x - aim).square().sum(-1) / aim.square().sum(-1).clamp(min=TINY)).mean()
