"""How far weights are from the original's: KL by token over the whole vocabulary, in one decoder in fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from smolship.export.checkpoints import Checkpoint
from smolship.export.config import DecoderConfig
from smolship.export.numerics import Numerics
from smolship.export.reference import Reference
from smolship.export.stream import Flow, through
from smolship.export.weights import Source
from smolship.runtime.errors import InputError
from smolship.runtime.tokenizer import Tokenizer

SHORTEST = 32  # tokens of a document that is judged on
Progress = Callable[[float], None]  # takes how many positions more are done


@dataclass(frozen=True)
class Gaps:
    """Of each token: its document, the KL divergence of what follows (nats), and whether the likeliest agrees."""

    document: np.ndarray  # int64 [N]
    kl: np.ndarray  # float64 [N]
    top1: np.ndarray  # bool [N]


def windows(
    tokenizer: Tokenizer, documents: dict[str, str], tokens: int, longest: int, whole: bool = False
) -> list[np.ndarray]:
    """The beginning of each document, of up to `longest` tokens, until there are `tokens` in all; or, `whole`, all of
    each in such windows."""
    found: list[np.ndarray] = []
    left = tokens
    for text in documents.values():
        ids = np.array(tokenizer.encode(text), np.int32)
        for start in range(0, len(ids) if whole else 1, longest):
            window = ids[start : start + min(longest, left)]
            if len(window) >= min(SHORTEST, left):
                found.append(window)
                left -= len(window)
            if not left:
                return found
    raise InputError(
        "there is not that much text",
        got=f"{tokens:,} tokens, in documents of up to {longest:,}",
        expected=f"at most {tokens - left:,} tokens",
        todo="ask for fewer tokens, or more of each document",
    )


class Judge:
    """The original's hidden states at the end of its layers, for texts; every set of weights is compared with it."""

    def __init__(self, checkpoint: Checkpoint, texts: Sequence[np.ndarray], progress: Progress):
        self.texts = texts
        self.flows = self._run(checkpoint.config, checkpoint, progress, lambda name: Numerics())

    def gaps(
        self,
        config: DecoderConfig,
        source: Source,
        progress: Progress,
        numerics: Callable[[str], Numerics] = lambda name: Numerics(),
    ) -> Gaps:
        """Of weights; `numerics` rounds the activations of a matrix, by its name."""
        flows = self._run(config, source, progress, numerics)
        parts = []
        with torch.inference_mode():
            for i, (original, flow) in enumerate(zip(self.flows, flows, strict=True)):
                at = np.arange(flow.length)
                for (_, a), (_, b) in zip(original.logits(at), flow.logits(at), strict=True):
                    parts.append(Gaps(np.full(len(a), i), *_between(torch.from_numpy(a), torch.from_numpy(b))))
        flows[0].ops.forget()
        return Gaps(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("document", "kl", "top1")))

    def _run(
        self, config: DecoderConfig, source: Source, progress: Progress, numerics: Callable[[str], Numerics]
    ) -> list[Flow]:
        ops = Reference(config, source, max(map(len, self.texts)), numerics)
        flows = [Flow(ops, ids) for ids in self.texts]
        with torch.inference_mode():
            through(flows, progress)
        return flows


def _between(a: torch.Tensor, b: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """KL(a, b) of logits [n, V], and where their largest agree."""
    p, q = a.log_softmax(-1), b.log_softmax(-1)
    kl = (p.exp() * (p - q)).double().sum(-1)
    return kl.numpy(), (a.argmax(-1) == b.argmax(-1)).numpy()
