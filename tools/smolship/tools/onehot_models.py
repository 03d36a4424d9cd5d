"""Models of one layer that let the inputs and outputs of one matrix be seen, and what they answer by formula.

    embed            x = a row of the table. Its logits are x / rms(x).
    v                one token: the softmax is 1, so that the attention gives v.
    q                the keys of as many tokens as a head has dimensions are one-hot, and so are their values: the
                     attention gives the probabilities, hence q rotated by each distance.
    k                some columns are in the cache, and queries are one-hot.
    o                v selects what goes into it, and every query head has a key head of its own.
    gate, up         down selects outputs. Of h and -h, silu(g) u and silu(-g) (-u) give back both g and u.
    down             up selects what goes into it, and gate is the same for all.
    head             some rows of it (all rows are stored alike).

Matrices that are stacked with the one in question are quantized as it is, so that the file has the same layout as the
real one. All else is 16 bits. P tokens of a prefix, N queries after it, H hidden, K head_dim, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from smolship.export.config import Attention, DecoderConfig, ShortConv, with_mixers
from smolship.export.quantize import QMAX, pack4
from smolship.export.weights import Weights
from smolship.runtime.readback.hashing import Entry, TensorHash, digest
from smolship.runtime.session import Session

COLUMNS = 64  # of a matrix that are looked at
GATE = 1.0  # weight of what opens the gate where it is the same for all
SCORE = 4.0  # the largest of a probe; a relative error of it is so many times that of a probability


@dataclass(frozen=True)
class Matrix:
    """A matrix of a probe: codes and scales, or values (bits 16)."""

    entry: Entry
    codes: np.ndarray
    scales: np.ndarray | None = None

    @cached_property
    def values(self) -> np.ndarray:
        """float64 [rows, width]."""
        if self.scales is None:
            return self.codes.astype(np.float64)
        grouped = self.codes.reshape(len(self.codes), -1, self.entry.group).astype(np.float64)
        return (grouped * self.scales[:, :, None]).reshape(self.codes.shape)

    def rows(self, keep: np.ndarray) -> Matrix:
        entry = replace(self.entry, shape=(len(keep), *self.entry.shape[1:]))
        return Matrix(entry, self.codes[keep], None if self.scales is None else self.scales[keep])


def plain(values: np.ndarray) -> Matrix:
    """16 bits."""
    return Matrix(Entry(values.shape, 16, 0, "rounded"), values.astype(np.float16))


def like(other: Matrix, ones: np.ndarray, size: float) -> Matrix:
    """`ones` (of 0 and 1) times about `size`, held as `other` is."""
    if other.scales is None:
        return plain(ones * size)
    bits, group = other.entry.bits, other.entry.group
    scale = 2.0 ** np.round(np.log2(size / QMAX[bits]))
    scales = np.full((len(ones), ones.shape[1] // group), scale, np.float32)
    entry = replace(other.entry, shape=ones.shape)
    return Matrix(entry, (ones * QMAX[bits]).astype(np.int8), scales)


@dataclass
class Probe:
    """A model of one layer, and what is fed to it: each sequence is `prefix` and one of `queries`.

    looked_at  the matrices that its answers show
    grows      how many times as large a relative error gets on its way to the answer
    """

    config: DecoderConfig
    tensors: dict[str, Matrix]
    looked_at: tuple[str, ...]
    queries: list[int]
    prefix: list[int]
    grows: float = 1.0

    def weights(self, folder: Path) -> Weights:
        """The model as a set of weights in `folder`."""
        arrays: dict[str, np.ndarray] = {}
        listed: dict[str, dict[str, Any]] = {}
        for name in self.config.shapes():
            matrix = self.tensors[name]
            hashed = TensorHash(name, matrix.entry)
            hashed.update(matrix.codes, matrix.scales)
            listed[name] = asdict(matrix.entry) | {"sha256": hashed.hexdigest()}
            if matrix.scales is None:
                arrays[name] = matrix.codes
            else:
                arrays[f"{name}.codes"] = pack4(matrix.codes) if matrix.entry.bits == 4 else matrix.codes
                arrays[f"{name}.scales"] = matrix.scales.astype(np.float16)
        save_file(arrays, folder / "weights.safetensors")
        whole = digest(entry["sha256"] for entry in listed.values())
        (folder / "weights.json").write_text(json.dumps({"digest": whole, "tensors": listed}))
        return Weights(folder)

    def run(self, session: Session) -> np.ndarray:
        """Logits after each sequence, float64 [sequences, V]."""
        if self.prefix:
            session.forward(self.prefix)
        answers = []
        for token in self.queries:
            answers.append(session.forward([token])[0].astype(np.float64))
            session.rewind(len(self.prefix))
        return np.stack(answers)

    def formula(self) -> tuple[np.ndarray, np.ndarray]:
        """The same of codes * scales, in float64; and of the magnitudes of what the hidden state is added up from, to
        which its rounding is relative."""
        a, t = self.config.attentions[0], {name: matrix.values for name, matrix in self.tensors.items()}
        past, x = t["embed"][np.array(self.prefix, int)], t["embed"][self.queries]  # [P, H], [N, H]

        def project(kind: str, rows: np.ndarray) -> np.ndarray:
            matrix = t[f"layers.0.{kind}"]
            heads = (self._norm(rows) @ matrix.T).reshape(len(rows), len(matrix) // a.head_dim, a.head_dim)
            normed = a.qk_norm == "head" and kind in ("q", "k")
            return self._norm(heads) * t[f"layers.0.{kind}_norm"] if normed else heads

        here, repeats = len(past), a.heads // a.kv_heads
        q = self._rotate(project("q", x), np.full(len(x), here))  # [N, heads, K]
        k, v = self._rotate(project("k", x), np.full(len(x), here)), project("v", x)
        old_k, old_v = self._rotate(project("k", past), np.arange(here)), project("v", past)  # [P, key heads, K]
        k, v, old_k, old_v = (np.repeat(kept, repeats, axis=1) for kept in (k, v, old_k, old_v))
        scores = np.concatenate([np.einsum("nhk,phk->nhp", q, old_k), np.sum(q * k, axis=2, keepdims=True)], axis=2)
        odds = np.exp(scores * a.scale)  # scores are small
        odds /= odds.sum(axis=2, keepdims=True)
        mixed = np.einsum("nhp,phk->nhk", odds[..., :-1], old_v) + odds[..., -1:] * v
        terms = [x, mixed.reshape(len(x), -1) @ t["layers.0.o"].T]
        h = self._norm(sum(terms))
        gate = h @ t["layers.0.gate"].T
        terms.append((gate / (1 + np.exp(-gate)) * (h @ t["layers.0.up"].T)) @ t["layers.0.down"].T)
        x, head = sum(terms), t["head"].T
        return self._norm(x) @ head, (sum(map(np.abs, terms)) / self._root(x)) @ np.abs(head)

    def _root(self, x: np.ndarray) -> np.ndarray:
        return np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.config.norm_eps)

    def _norm(self, x: np.ndarray) -> np.ndarray:
        return x / self._root(x)

    def _rotate(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """[S, heads, K] at positions [S]."""
        rotary = self.config.attentions[0].rotary
        assert rotary is not None
        angle = positions[:, None, None] * rotary.frequencies()
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate(
            [first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)], axis=-1
        )


class Maker:
    """Makes the probes of the matrices of one layer.

    real  q, k, v, o, gate, up, down, embed, head, read back
    """

    def __init__(self, config: DecoderConfig, layer: int, real: Mapping[str, Matrix], tokenizer_size: int):
        self.real = real
        mixer = config.layers[layer].mixer
        assert isinstance(mixer, Attention), "a layer that attends"
        self.h, self.mixer = config.hidden, mixer
        self.width = config.layers[layer].mlp.width
        self.vocab = max(self.h, tokenizer_size, 2 * COLUMNS, self.mixer.head_dim + COLUMNS)
        # With the biases and norms of queries and keys that an architecture of llama.cpp must have; biases are 0.
        self.mixer = replace(self.mixer, rotary=self.mixer.rotary or next(iter(config.rotaries.values())), window=None)
        one = replace(config.layers[layer], mixer=self.mixer)
        # With a convolution, too, where the model has one: llama.cpp's architecture must. It adds 0.
        convolves = [other for other in config.layers if isinstance(other.mixer, ShortConv)]
        self.config = replace(config, layers=(one, *convolves[:1]), vocab=self.vocab, tied_head=False, bos=0, eos=(1,))
        self.length = (self.h / (1 + self.h * config.norm_eps)) ** 0.5  # of what a norm makes of a one-hot row

    def all(self) -> Iterator[Probe]:
        yield self.embed()
        yield self.value()
        yield self.query()
        yield self.key()
        yield self.output()
        yield self.gate_up()
        yield self.down()
        yield self.head()

    def embed(self) -> Probe:
        return self._probe(("embed",), spread(self.vocab, COLUMNS), embed=self._sample("embed"))

    def head(self) -> Probe:
        columns = spread(self.h, COLUMNS)
        return self._probe(("head",), range(len(columns)), embed=self._tokens(columns), head=self._sample("head"))

    def value(self) -> Probe:
        columns, real = spread(self.h, COLUMNS), self.real
        q, k = (like(real[name], np.zeros(real[name].codes.shape), 1.0) for name in "qk")
        return self._probe(
            ("v",), range(len(columns)), embed=self._tokens(columns), q=q, k=k, v=real["v"], o=self._heads()
        )

    def query(self) -> Probe:
        """Token d of the prefix is one-hot in d, and so are its key and its value in each head."""
        size, columns = self.mixer.head_dim, spread(self.h, COLUMNS)
        return self._probe(
            ("q",),
            range(size, size + len(columns)),
            range(size),
            embed=self._tokens([*range(size), *columns]),
            q=self.real["q"],
            k=self._picks("k", range(size), self._strength("q")),
            v=self._picks("v", range(size), 1 / self.length),
            o=self._heads(),
        )

    def key(self) -> Probe:
        """Token i of the prefix is one-hot in a column of k, its value in i; queries are one-hot."""
        size = self.mixer.head_dim
        columns = spread(self.h, min(COLUMNS, size))
        return self._probe(
            ("k",),
            range(len(columns), len(columns) + size),
            range(len(columns)),
            embed=self._tokens([*columns, *range(size)]),
            k=self.real["k"],
            q=self._picks("q", range(size), self._strength("k")),
            v=self._picks("v", columns, 1 / self.length),
            o=self._heads(),
        )

    def output(self) -> Probe:
        width = self.real["o"].codes.shape[1]
        columns = spread(width, min(COLUMNS, self.h))
        v = np.zeros((width, self.h))
        v[columns, range(len(columns))] = 1
        config = with_mixers(self.config, kv_heads=[self.mixer.heads])
        return self._probe(
            ("o",),
            range(len(columns)),
            config=config,
            embed=self._tokens(range(len(columns))),
            v=plain(v),
            o=self.real["o"],
        )

    def gate_up(self) -> Probe:
        """Each column once with either sign."""
        columns = spread(self.h, COLUMNS // 2)
        embed = self._tokens([*columns, *columns])
        embed.codes[len(columns) : 2 * len(columns)] *= -1
        down = np.zeros((self.h, self.width))
        outputs = spread(self.width, self.h)
        down[range(len(outputs)), outputs] = 1
        return self._probe(
            ("gate", "up"),
            range(2 * len(columns)),
            embed=embed,
            gate=self.real["gate"],
            up=self.real["up"],
            down=plain(down),
        )

    def down(self) -> Probe:
        """The last hidden number is what opens the gate."""
        columns = spread(self.width, min(COLUMNS, self.h - 1))
        embed = self._tokens(range(len(columns)))
        embed.codes[: len(columns), -1] = 1
        gate, up = (np.zeros((self.width, self.h)) for _ in range(2))
        gate[:, -1] = GATE
        up[columns, range(len(columns))] = 1
        return self._probe(
            ("down",), range(len(columns)), embed=embed, gate=plain(gate), up=plain(up), down=self.real["down"]
        )

    def _probe(
        self,
        looked_at: tuple[str, ...],
        queries: Iterable[int],
        prefix: Iterable[int] = (),
        *,
        config: DecoderConfig | None = None,
        **given: Matrix,
    ) -> Probe:
        """What is not given is 0; the head gives the hidden state, as it is normed."""
        config = config or self.config
        tensors = {
            name: plain(np.ones(shape)) if name.endswith("norm") else plain(np.zeros(shape))
            for name, shape in config.shapes().items()
        }
        tensors["head"] = plain(np.eye(self.vocab, self.h))
        if self.mixer.qk_norm == "head":  # no number of a normed head is larger than the root of its size
            tensors["layers.0.q_norm"] = plain(np.full(self.mixer.head_dim, SCORE * self.mixer.head_dim**-0.5))
        tensors |= {name if name in tensors else f"layers.0.{name}": matrix for name, matrix in given.items()}
        return Probe(config, tensors, looked_at, list(queries), list(prefix), SCORE if prefix else 1.0)

    def _sample(self, kind: str) -> Matrix:
        """As many rows of a table as the probe has tokens."""
        table = self.real[kind]
        return table.rows(np.linspace(0, len(table.codes) - 1, self.vocab).round().astype(int))

    def _tokens(self, hot: Iterable[int]) -> Matrix:
        """An embedding whose token i is one-hot in hot[i]."""
        table = np.zeros((self.vocab, self.h))
        columns = list(hot)
        table[range(len(columns)), columns] = 1
        return plain(table)

    def _heads(self) -> Matrix:
        """An o that puts as many of the attention's numbers as there is room for into the hidden state."""
        width = self.mixer.heads * self.mixer.head_dim
        outputs, o = spread(width, self.h), np.zeros((self.h, width))
        o[range(len(outputs)), outputs] = 1
        return plain(o)

    def _picks(self, kind: str, columns: Iterable[int], size: float) -> Matrix:
        """A q, k or v that puts columns[i] into dimension i of every head, held as the real one is."""
        ones = np.zeros(self.real[kind].codes.shape)
        for i, column in enumerate(columns):
            ones[i :: self.mixer.head_dim, column] = 1
        return like(self.real[kind], ones, size)

    def _strength(self, kind: str) -> float:
        """What makes the largest score about SCORE. Where keys and queries are normed, the gain of the norm does."""
        if self.mixer.qk_norm:
            return 1.0
        peak = float(np.abs(self.real[kind].values).max()) or 1.0
        return SCORE / (self.mixer.scale * self.length**2 * peak)


def spread(count: int, most: int) -> np.ndarray:
    """Up to `most` of 0…count - 1, evenly, with the first and the last."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(int)
