"""Error compensation: codes of a matrix chosen one input after the other, each rounding made up for by the inputs that
are still open (GPTQ, Frantar et al. 2022, arXiv:2210.17323), with a scale searched for each group as it begins.

Matrices lie transposed here, [in, out], so that an input is a row in memory.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from smolship.export.calibrate.ops import product
from smolship.export.calibrate.pool import Pool
from smolship.export.quantize import MAX_SCALE, MIN_SCALE, QMAX, QMIN, SHRINK, QuantTensor

DAMPING = (0.01, 0.1, 1.0)  # of the mean of the diagonal; more where less cannot be inverted
OUTPUTS = 768  # rows of a matrix that are rounded at once
TOKENS, INPUTS = 2048, 512  # of a piece of a Hessian


class Hessian:
    """x.T @ x [in, in] of the inputs x [tokens, in] of a matrix: a strip of it by one thread, tokens in order."""

    def __init__(self, width: int, pool: Pool):
        self.pool, self.found = pool, torch.zeros(width, width, device=pool.device)

    def add(self, x: Tensor) -> None:
        for part in x.split(TOKENS):
            turned = part.t().contiguous()

            def strip(start: int, turned: Tensor = turned) -> None:
                self.found[start : start + INPUTS, start:] += product(turned[start : start + INPUTS], turned[start:])

            list(self.pool.map(strip, range(0, len(self.found), INPUTS)))

    def whole(self) -> Tensor:
        """What was found is the upper half of it."""
        self.found.triu_()
        self.found.add_(self.found.triu(1).t())
        return self.found


def inverse_root(h: Tensor) -> Tensor | None:
    """The upper Cholesky factor of the inverse of a Hessian, which is written over; None where there is none."""
    diagonal = h.diagonal()
    mean = diagonal.mean()
    if not bool(torch.isfinite(mean)) or mean <= 0:
        return None
    diagonal[diagonal == 0] = mean  # an input that is always zero
    damped = 0.0
    for damping in DAMPING:
        diagonal += (damping - damped) * mean
        damped = damping
        lower, failed = torch.linalg.cholesky_ex(h)
        if failed:
            continue
        inverse = torch.cholesky_inverse(lower)
        del lower
        root, failed = torch.linalg.cholesky_ex(inverse, upper=True)
        if not failed and bool(torch.isfinite(root).all()):
            return root
    return None


def compensate(weight: Tensor, root: Tensor, bits: int, group: int, pool: Pool) -> QuantTensor:
    """The matrix [out, in] on the portable grid. `root` is that of its inputs' Hessian."""
    parts = list(pool.map(lambda rows: _rounded(rows, root, bits, group), weight.split(OUTPUTS)))
    codes, scales = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return QuantTensor(codes, scales, bits, group)


def _rounded(weight: Tensor, root: Tensor, bits: int, group: int) -> tuple[np.ndarray, np.ndarray]:
    open_ = weight.t().contiguous()  # [in, out]
    width, out = open_.shape
    codes = torch.empty(width, out, dtype=torch.int8, device=weight.device)
    scales = torch.empty(width // group, out, device=weight.device)
    inverse = 1 / root.diagonal()
    errors = torch.empty(group, out, device=weight.device)
    for start in range(0, width, group):
        stop = start + group
        block = open_[start:stop]
        scale = scales[start // group] = search(block, inverse[start:stop], bits)
        steps = 1 / scale
        for j in range(group):
            c = start + j
            code = (block[j] * steps).round_().clamp_(QMIN[bits], QMAX[bits])
            codes[c] = code
            torch.sub(block[j], code.mul_(scale), out=errors[j]).mul_(inverse[c])
            if j + 1 < group:
                block[j + 1 :].addr_(root[c, c + 1 : stop], errors[j], alpha=-1)
        if stop < width:
            open_[stop:].addmm_(root[start:stop, stop:].t(), errors, alpha=-1)
    return codes.t().contiguous().cpu().numpy(), scales.t().contiguous().cpu().numpy()


def search(block: Tensor, inverse: Tensor, bits: int) -> Tensor:
    """The portable scale of each column of [group, out] with the least squared error, each input weighted as rounding
    it costs the whole. At 8 bits the one that reaches the largest magnitude."""
    reach = torch.maximum(block.amax(0) / QMAX[bits], block.amin(0) / QMIN[bits])
    if bits == 8:
        return portable(reach)
    weights = inverse.square()[:, None]
    best = error = None
    for factor in SHRINK.tolist():
        scale = portable(reach * factor)
        off = (block / scale).round_().clamp_(QMIN[bits], QMAX[bits]).mul_(scale).sub_(block).square_().mul_(weights)
        found = off.sum(0)
        if best is None or error is None:
            best, error = scale, found
        else:
            better = found < error
            best, error = torch.where(better, scale, best), torch.where(better, found, error)
    assert best is not None
    return best


def portable(scales: Tensor) -> Tensor:
    """The nearest portable scales."""
    return scales.bfloat16().float().clamp(MIN_SCALE, MAX_SCALE)
