"""A small calibration of the real model on text that it writes itself, judged on text that it never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smolship.export.calibrate import asked
from smolship.export.calibrate.asked import Calibration, Effort
from smolship.export.calibrate.state import State
from smolship.export.calibrate.step import calibrate
from smolship.export.checkpoints import open_checkpoint
from smolship.export.facts import resolve
from smolship.export.quantize import portable
from smolship.export.reference import Reference, run
from smolship.export.weights import SCHEMES, Source, write_weights
from smolship.export.windows import english
from smolship.runtime.tokenizer import Tokenizer

TOKENS = 512  # of Python's documentation


@pytest.mark.real
def test_a_little_of_its_own_text_brings_the_weights_nearer(
    demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(asked.EFFORTS, "quick", Effort(windows=16, steps=6, layer_steps=2))
    monkeypatch.setattr(asked, "WINDOW", 192)
    checkpoint = open_checkpoint(str(demo_model))
    base = write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path)
    made, facts = calibrate(
        checkpoint,
        resolve(checkpoint),
        base,
        Calibration("quick"),
        None,
        tmp_path / "calibrated",
        State(None),
        lambda *_: None,
    )
    assert facts.kl_before and facts.kl_after and facts.kl_after < 0.85 * facts.kl_before
    for name, entry in made.entries.items():
        assert entry.bits == 16 or portable(made.scales(name)).all()
    ids = Tokenizer(checkpoint.files["tokenizer.json"]).encode(english())[:TOKENS]
    wanted, before, after = (answers(checkpoint.config, source, ids) for source in (checkpoint, base, made))
    assert kl(wanted, after) < 0.9 * kl(wanted, before)


def answers(config: object, source: Source, ids: list[int]) -> np.ndarray:
    """Logarithms of probabilities, by the decoder that judges exports."""
    logits = run(config, Reference(config, source, len(ids)), ids).astype(np.float64)  # type: ignore[arg-type]
    logits -= logits.max(-1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))


def kl(wanted: np.ndarray, found: np.ndarray) -> float:
    return float((np.exp(wanted) * (wanted - found)).sum(-1).mean())
