"""One-hot probes: each engine is made to reveal its weight matrices, so that a reader cannot share a misunderstanding
with a writer.

Codes and scales are read back from an artifact and put, as they are, into models of one layer (onehot_models.py); the
target lowers them and its engine runs them. What comes out is compared with codes * scales, by formulas in float64.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from smolship.export.config import Attention, DecoderConfig
from smolship.export.families import family_of
from smolship.export.families.fields import Fields
from smolship.export.numerics import Numerics
from smolship.export.targets import Job, load_target
from smolship.runtime.bundle import Bundle
from smolship.runtime.engines import load_engine
from smolship.runtime.errors import InputError
from smolship.runtime.facts import EndToken, GenerationFacts
from smolship.runtime.files import read_json
from smolship.runtime.readback.compare import canonical, expected, stored
from smolship.runtime.tensors import LINEARS
from smolship.tools.onehot_models import Maker, Matrix, Probe

SINGLE, HALF = 2.0**-17, 2.0**-8  # tolerances, relative to what was added up
FLOOR = 2.0**-16  # of the largest value: XNNPACK subtracts two large numbers where the answer is 0


@dataclass(frozen=True)
class Verdict:
    """How far one matrix, as the engine revealed it, is from ours: the largest difference, in tolerances."""

    target: str
    name: str
    worst: float

    @property
    def equal(self) -> bool:
        return self.worst <= 1  # false for NaN


def reveal(
    bundle: Bundle,
    target: str,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    layer: int | None = None,
) -> list[Verdict]:
    """The matrices of a layer that attends (the first, where none is named), the table and the head, as the engine of
    `target` reveals them."""
    config = config_of(bundle)
    if layer is None:
        layer = next(i for i, one in enumerate(config.layers) if isinstance(one.mixer, Attention))
    names = {"embed": "embed", **{kind: f"layers.{layer}.{kind}" for kind in LINEARS}, "head": config.head}
    matrices = read_back(bundle, target, names.values())
    real = {kind: matrices[name] for kind, name in names.items()}
    tokenizer, size = byte_tokenizer()
    probes = list(Maker(config, layer, real, size).all())
    verdicts = []
    for done, probe in enumerate(probes):
        seen = [names[kind] if kind != "head" else "head" for kind in probe.looked_at]
        progress(", ".join(seen), done, len(probes))
        worst = judge(probe, target, {"tokenizer.json": tokenizer})
        verdicts += [Verdict(target, name, worst) for name in seen]
    progress("", len(probes), len(probes))
    return verdicts


def check(bundle: Bundle, targets: Iterable[str]) -> None:
    """Raise InputError where a target has no probes: they want a head of their own."""
    config = replace(config_of(bundle), tied_head=False)
    for target in targets:
        if found := load_target(target).problems(config):
            raise InputError(
                f"the engine of {target} cannot reveal this model's weights",
                got="; ".join(found),
                expected="a model that could have a head of its own, through which the others are seen",
                todo=f"reveal with the other targets (-t); without --reveal the file of {target} is compared, too",
            )


# GGUF wants a token that ends a text; nothing here asks for it.
ENDS = GenerationFacts(ends=(EndToken(1, "</s>", ("byte_tokenizer",)),), bos=0)


def read_back(bundle: Bundle, target: str, names: Iterable[str]) -> dict[str, Matrix]:
    """Matrices as the artifact of a target holds them, by name."""
    entries, wanted = expected(bundle, target), set(names)
    found = {}
    for tensor in stored(bundle, target, entries):
        if tensor.name in wanted:
            entry = entries[tensor.name]
            values, scales = canonical(tensor, entry, 0, entry.shape[0])
            found[tensor.name] = Matrix(entry, np.array(values), None if scales is None else scales.astype(np.float32))
    return found


def judge(probe: Probe, target: str, files: dict[str, bytes]) -> float:
    """Lower one probe, run it, and compare: the largest difference, in tolerances."""
    module = load_target(target)
    with tempfile.TemporaryDirectory() as work:
        weights, folder = probe.weights(Path(work)), Path(work) / "artifact"
        folder.mkdir()
        info = module.lower(Job(probe.config, weights, len(probe.prefix) + 1, files, ENDS), folder)
        with load_engine(module.ENGINE).open_session(folder, info, threads=1) as session:
            seen = probe.run(session)
        allowed = tolerance(module.numerics(weights), probe)
    wanted, sizes = probe.formula()
    return float(np.max(np.abs(seen - wanted) / (allowed * sizes + FLOOR * np.abs(wanted).max())))


def tolerance(numerics: Callable[[str], Numerics], probe: Probe) -> float:
    """Relative. A one-hot row is rounded to int8 without loss, so that what remains is float32's rounding of sums with
    one term; or fp16's of a dozen operators, 2^-11 each, of which most cancel in the last norm."""
    kinds = [numerics(name) for name in ("layers.0.q", "layers.0.o", "head")]
    half = any(n.half or n.half_attention for n in kinds)
    return probe.grows * (HALF if half else SINGLE)


def config_of(bundle: Bundle) -> DecoderConfig:
    raw = read_json(bundle.path / "config.json", "config.json")
    return family_of(raw, bundle.path).translate(Fields(raw, bundle.path))


def byte_tokenizer() -> tuple[bytes, int]:
    """A byte-level tokenizer, for formats that want one, and its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        ["one two"] * 2,
        trainers.BpeTrainer(
            vocab_size=260,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return tokenizer.to_str().encode(), tokenizer.get_vocab_size()
