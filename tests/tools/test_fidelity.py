"""Size against fidelity: texts, what is read back, KL and its intervals, and what a rotation does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smolship.export.checkpoints import open_checkpoint
from smolship.export.quantize import QuantTensor, pack4
from smolship.export.reference import Reference, run
from smolship.export.weights import SCHEMES, write_weights
from smolship.runtime.errors import InputError
from smolship.runtime.tokenizer import Tokenizer
from smolship.tools.fidelity import bootstrap, readers, texts
from smolship.tools.fidelity.__main__ import run as command
from smolship.tools.fidelity.frontier import Point, best
from smolship.tools.fidelity.imatrix import importance
from smolship.tools.fidelity.judge import Gaps, Judge, windows
from smolship.tools.fidelity.plot import render
from smolship.tools.fidelity.rotation import Plain, Rotated, Trial, orthogonal
from smolship.tools.fidelity.rows import BASE, ROWS, choose, with_files

TEXTS = [np.arange(5, 45, dtype=np.int32), np.arange(60, 100, dtype=np.int32)[::-1].copy()]


@pytest.fixture
def checkpoint(tiny):
    return open_checkpoint(str(tiny("llama")))


def nothing(*told):
    pass


def test_a_document_has_one_use_and_no_paragraph_has_two(monkeypatch):
    shared = "A paragraph that two modules have in common, long enough to be told from a heading. " * 12
    copies = {f"module {i}": f"{shared}\n\n{f'What only module {i} says. ' * 50}" for i in range(40)}
    monkeypatch.setattr(texts, "_modules", lambda: copies)
    found = texts.texts.__wrapped__()
    uses = [found.judging, found.calibration, found.training]
    assert all(uses) and sum(map(len, uses)) == len(set().union(*uses))
    assert all(texts.use(name) == "judging" for name in found.judging)
    paragraphs = [{p for text in use.values() for p in text.split("\n\n") if len(p) >= texts.PARAGRAPH} for use in uses]
    assert shared.strip() in {p.strip() for p in paragraphs[0]}
    assert not paragraphs[0] & (paragraphs[1] | paragraphs[2]) and not paragraphs[1] & paragraphs[2]


def test_windows_are_the_beginnings_of_documents_or_all_of_them(tiny):
    tokenizer = Tokenizer(tiny("llama") / "tokenizer.json")
    documents = {"a": "alpha " * 40, "short": "x", "b": "beta " * 40}
    begun = windows(tokenizer, documents, 96, 64)
    assert [len(ids) for ids in begun] == [64, 32]
    assert begun[1].tolist() == tokenizer.encode(documents["b"])[:32]
    whole = windows(tokenizer, documents, 200, 64, whole=True)
    assert np.concatenate(whole[:3]).tolist() == tokenizer.encode(documents["a"])[:192]
    with pytest.raises(InputError, match="at most 128 tokens"):
        windows(tokenizer, documents, 1000, 64)


def test_kl_is_that_of_the_whole_vocabulary(checkpoint, tmp_path):
    judge = Judge(checkpoint, TEXTS, nothing)
    same = judge.gaps(checkpoint.config, checkpoint, nothing)
    assert np.abs(same.kl).max() < 1e-6 and same.top1.all() and np.bincount(same.document).tolist() == [40, 40]
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path)
    gaps = judge.gaps(checkpoint.config, weights, nothing)
    a, b = (
        torch.from_numpy(run(checkpoint.config, Reference(checkpoint.config, source, 64), TEXTS[1])).double()
        for source in (checkpoint, weights)
    )
    p, q = a.log_softmax(-1), b.log_softmax(-1)
    expected = (p.exp() * (p - q)).sum(-1).numpy()
    assert expected.mean() > 1e-3
    np.testing.assert_allclose(gaps.kl[40:], expected, rtol=1e-3, atol=1e-6)
    assert (gaps.top1[40:] == (a.argmax(-1) == b.argmax(-1)).numpy()).all()


def gaps_of(*documents):
    kl = np.concatenate([np.asarray(d, float) for d in documents])
    at = np.repeat(np.arange(len(documents)), [len(d) for d in documents])
    return Gaps(at, kl, np.ones(len(kl), bool))


def test_intervals_are_paired_by_document():
    random = np.random.default_rng(1)
    level = random.uniform(0.1, 1, 30)
    base = gaps_of(*(k * random.uniform(0.5, 1.5, 20) for k in level))
    half = Gaps(base.document, base.kl / 2, base.top1)
    assert bootstrap.ratio(base, base) == bootstrap.Interval(1, 1, 1)
    paired = bootstrap.ratio(half, base)
    assert paired.low == pytest.approx(0.5) and paired.high == pytest.approx(0.5)
    own = bootstrap.mean(base)
    assert own.value == pytest.approx(base.kl.mean())
    spread = np.bincount(base.document, base.kl) / 20
    error = spread.std(ddof=1) / 30**0.5
    assert (own.high - own.low) == pytest.approx(2 * 1.96 * error, rel=0.1)
    with pytest.raises(ValueError, match="different texts"):
        bootstrap.ratio(gaps_of([1, 2]), gaps_of([1], [2]))


def test_bytes_of_a_set_are_those_of_its_file(checkpoint, tmp_path):
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path)
    stored = sum(map(readers.entry_bytes, weights.entries.values()))
    assert 0 < (tmp_path / "weights.safetensors").stat().st_size - stored < 10_000  # its header
    held = readers.Stored(checkpoint.config, weights, stored)
    assert 4.5 < held.bits_per_weight < 8.5


def test_blocks_of_matmulnbits_are_unpacked():
    random = np.random.default_rng(0)
    codes = random.integers(-8, 8, (3, 64)).astype(np.int8)
    scales = random.standard_normal((3, 2)).astype(np.float32)
    expected = QuantTensor(codes, scales, 4, 32).dequantize()
    packed = pack4(codes).reshape(3, 2, 16)
    assert (readers.unpacked(packed, scales, 4) == expected).all()
    wide = (codes.astype(np.int16) + 128).astype(np.uint8).reshape(3, 2, 32)
    assert (readers.unpacked(wide, scales.reshape(-1), 8) == expected).all()


def test_importance_is_the_mean_square_of_what_a_matrix_takes(checkpoint):
    found = importance(checkpoint, TEXTS, nothing)
    x = np.concatenate([checkpoint.read("embed")[ids] for ids in TEXTS])
    normed = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * checkpoint.read("layers.0.attn_norm")
    for name in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_allclose(found[f"blk.0.{name}.weight"], (normed**2).mean(0), rtol=1e-4)
    assert found["blk.1.ffn_down.weight"].shape == (192,) and (found["blk.1.ffn_down.weight"] > 0).all()
    assert {name for name in found if not name.startswith("blk.")} <= {"token_embd.weight", "output.weight"}


def test_a_rotation_says_the_same_and_spreads_what_is_large(checkpoint):
    turn = orthogonal(24)
    np.testing.assert_allclose(turn @ turn.T, np.eye(24), atol=1e-12)
    assert np.abs(turn).max() < 0.9
    rotated = Rotated(Plain(checkpoint), checkpoint.config)
    assert rotated.exact and not rotated.config.tied_head
    gaps = Judge(checkpoint, TEXTS, nothing).gaps(rotated.config, rotated, nothing)
    assert np.abs(gaps.kl).max() < 1e-5
    rotated.gain = lambda kind, layer: 1.0  # norms' gains forgotten: no longer the same
    assert Judge(checkpoint, TEXTS, nothing).gaps(rotated.config, rotated, nothing).kl.mean() > 1e-3


def test_behind_norms_a_rotation_waits_for_run_time(tiny, monkeypatch):
    checkpoint = open_checkpoint(str(tiny("gemma3")))
    monkeypatch.setattr(Trial, "__init__", lambda self: None)
    trial = Trial()
    trial.checkpoint, trial.texts, trial.update = checkpoint, TEXTS, nothing
    found = trial.run(32)
    assert list(found)[-1] == "rotated at run time, 8-bit activations"
    assert found["rotated, fp32 weights"].value < 1e-5 < found["as it is, fp32 activations"].value
    assert found["as it is, 8-bit activations"].value != found["as it is, fp32 activations"].value


def points():
    made = [Point(row) for row in ROWS[:4]]
    for point, size, kl in zip(made, (400, 300, 500, 450), (0.2, 0.3, 0.1, 0.25), strict=True):
        point.stored_bytes, point.bits_per_weight, point.gaps = size, size / 100, gaps_of([kl])
        point.kl = point.ratio = bootstrap.Interval(kl, kl / 2, kl * 2)
    made[3].row = with_files([ROWS[3]], {})[0]
    return made


def test_the_frontier_and_its_page():
    made = points()
    assert best(made) == {ROWS[0].name, ROWS[1].name, ROWS[2].name}
    made.append(Point(choose(["IQ4_XS"])[1], failed="<b>no</b>"))
    page = render("a <model>", made)
    assert page.count("<circle") == 4 and page.count('class="curve good"') == 2
    assert "a &lt;model&gt;" in page and "&lt;b&gt;no" in page and "<b>no" not in page


def test_rows_are_chosen_with_the_one_they_are_compared_with():
    assert [row.name for row in choose(["8_0"])] == [BASE, "llama.cpp Q8_0"]
    assert BASE in [row.name for row in choose(["genai"])]
    assert [row.name for row in choose(["Q4_0", "8da4w"], ["imatrix", "head", "mixed"])] == [BASE, "torchao 8da4w"]
    assert [row.name for row in choose(["mixed, Q4_K_M"], ["self"])][1:] == [
        "llama.cpp Q4_K_M",
        "smolship mixed, Q4_K_M's size",
    ]
    with pytest.raises(InputError, match="unknown row"):
        choose(["Q9"])


@pytest.mark.parametrize("arguments", [[], ["model", "--small"], ["--small", "--only", "Q9"]])
def test_what_is_asked_for_is_refused_before_any_work(arguments, capsys):
    assert command(arguments) == 2
    assert "expected" in capsys.readouterr().err
