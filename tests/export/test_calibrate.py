"""Calibration: nearer to the original on the same grid, the same on any number of threads, resumed, and refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smolship.export import export
from smolship.export.calibrate import asked, pool, step
from smolship.export.calibrate.asked import Calibration, Effort
from smolship.export.calibrate.compensate import Hessian, compensate, inverse_root
from smolship.export.calibrate.layers import Layers
from smolship.export.calibrate.ops import Batched, Norm, Ops
from smolship.export.calibrate.pool import Pool
from smolship.export.calibrate.state import State
from smolship.export.checkpoints import open_checkpoint
from smolship.export.decoder import Decoder
from smolship.export.facts import Resolved
from smolship.export.quantize import QMAX, QMIN, portable, quantize
from smolship.export.reference import Reference, run
from smolship.export.weights import SCHEMES, Scheme, Weights, write_weights
from smolship.runtime.bundle import open_bundle
from smolship.runtime.errors import InputError
from smolship.runtime.facts import GenerationFacts, Recommended
from smolship.runtime.readback.compare import compare

FACTS = GenerationFacts((), 1, None, False, Recommended(), {}, None)
RESOLVED = Resolved(FACTS, None, [], [])  # without a template: no process for it
SMALL = Effort(windows=16, steps=8, layer_steps=4)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "WINDOW", 32)
    monkeypatch.setitem(asked.EFFORTS, "default", SMALL)


@pytest.fixture(scope="module")
def calibrated(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """calibrated(kind, …) -> (the set that it began with, the calibrated one, what is said of it)"""

    def get(kind: str, scheme: Scheme = SCHEMES["int4"], model: Path | None = None, **more: Any) -> Any:
        checkpoint, folder = open_checkpoint(str(model or tiny(kind))), tmp_path_factory.mktemp(kind)
        base = write_weights(checkpoint, checkpoint.config, scheme, folder)
        given = {"documents": None, "state": State(None), "threads": 1, "device": "cpu"} | more
        state, documents = given.pop("state"), given.pop("documents")
        made, facts = step.calibrate(
            checkpoint,
            RESOLVED,
            base,
            given.pop("asked", Calibration()),
            documents,
            folder / "calibrated",
            state,
            given.pop("progress", lambda *_: None),
            **given,
        )
        return base, made, facts

    return get


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", ["llama", "gemma3", "lfm2", "qwen2_window"])
def test_the_set_comes_nearer_and_stays_on_the_grid(calibrated, kind):
    base, made, facts = calibrated(kind)
    assert facts.kl_after < facts.kl_before and facts.tokens == 16 * 32 and facts.lifted == 0
    again = Weights(made._slots["norm"].path.parent, base)
    assert again.digest == made.digest != base.digest
    changed = 0
    for name, entry in made.entries.items():
        before = base.entries[name]
        assert replace(entry, origin="", sha256="") == replace(before, origin="", sha256="")
        if entry.bits == 16:
            continue
        q = made.tensor(name)
        assert portable(q.scales).all() and q.codes.min() >= QMIN[q.bits] and q.codes.max() <= QMAX[q.bits]
        changed += entry.origin == "calibrated"
        assert entry.origin == "calibrated"
    assert changed == sum(map(base.quantized, base.entries))
    assert made.entries["norm"].origin == "calibrated" and base.entries["norm"].origin == "rounded"


@pytest.mark.real
def test_the_same_on_any_number_of_threads(calibrated):
    """Matrices of several pieces, and two steps at once."""
    digests = {calibrated("smollm3", threads=threads)[1].digest for threads in (1, 2, 3)}
    assert len(digests) == 1
    other = calibrated("smollm3", asked=Calibration(seed=1))[1].digest
    assert other not in digests


@pytest.mark.real
def test_by_layers_where_a_model_is_too_large_to_train_whole(calibrated, monkeypatch):
    _, _, whole = calibrated("llama")
    monkeypatch.setattr(asked, "WHOLE", 1000)
    _, made, facts = calibrated("llama")
    assert "layer by layer" in facts.method and "whole" in whole.method
    assert facts.kl_after < facts.kl_before and made.entries["layers.0.attn_norm"].origin == "calibrated"
    assert calibrated("llama", threads=2)[1].digest == made.digest
    monkeypatch.setattr("smolship.export.calibrate.layers.PASSING", 5 * 16 * 32 * 192)  # five windows at once
    in_groups = calibrated("llama")
    assert in_groups[2].kl_after == pytest.approx(facts.kl_after, rel=0.1)
    monkeypatch.setattr(asked, "WHOLE", 10**9)
    assert calibrated("llama")[2].kl_after == pytest.approx(whole.kl_after, rel=0.1)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("stop", ["the model writes", "layer 1", "scales"])
def test_an_interrupted_one_goes_on_where_it_was(calibrated, tmp_path, monkeypatch, stop):
    monkeypatch.setattr("smolship.export.calibrate.state.SECONDS", 0)
    whole = calibrated("llama")[1].digest
    seen: list[str] = []

    def progress(what: str, done: int, total: int) -> None:
        seen.append(what)
        if what.startswith(stop) and sum(one == what for one in seen) == (1 if stop == "layer 1" else 3):
            raise KeyboardInterrupt

    state = State(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        calibrated("llama", state=state, progress=progress)
    kept = {path.name for path in tmp_path.iterdir()}
    assert ("training.npz" in kept) == (stop == "scales") and ("streams.npz" in kept) == (stop != "the model writes")
    again: list[str] = []
    assert calibrated("llama", state=state, progress=lambda what, *_: again.append(what))[1].digest == whole
    assert ("the model writes" in again) == (stop == "the model writes") and ("layer 1 of 2" in again) == (
        stop != "scales"
    )
    assert not list(tmp_path.iterdir())


def test_state_that_was_cut_off_is_as_if_it_were_not_there(calibrated, tmp_path):
    for name in ("texts", "streams", "training"):
        (tmp_path / f"{name}.npz").write_bytes(b"PK\3\4 half")
    assert calibrated("llama", state=State(tmp_path))[1].digest == calibrated("llama")[1].digest


@pytest.mark.real
def test_int8_and_biases(calibrated):
    base, made, facts = calibrated("llama_bias", SCHEMES["int8"])
    assert facts.kl_after < facts.kl_before and made.tensor("layers.0.q").bits == 8
    np.testing.assert_array_equal(made.read("layers.0.q.bias"), base.read("layers.0.q.bias"))


@pytest.mark.real
def test_a_set_that_comes_no_nearer_is_left_as_it_was(calibrated, monkeypatch):
    monkeypatch.setattr("smolship.export.calibrate.distil.RATE", 1.0)
    base, made, facts = calibrated("llama")
    assert made.digest == base.digest and facts.kl_after == facts.kl_before and "kept" in facts.notes[0]


def test_a_text_shorter_than_the_effort_looks_at_is_said(calibrated):
    _, _, facts = calibrated("llama", documents=["".join(f"{i} " for i in range(120))])
    windows = facts.tokens // 32
    assert 8 <= windows < 16 and facts.notes[0].startswith(f"the text is {windows} of the 16 windows")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", ["llama", "llama_bias"])
def test_tables_of_4_bits_come_nearer(calibrated, kind, monkeypatch):
    """A head is rounded on what it meets, and scales of tables are trained. Without, less is won."""
    base, made, facts = calibrated(kind, Scheme(4, 4, 4), threads=2)
    assert calibrated(kind, Scheme(4, 4, 4), threads=1)[1].digest == made.digest
    heads = "embed" if base.entries.get("head") is None else "head"
    assert made.entries["embed"].origin == made.entries[heads].origin == "calibrated"
    rounded = not np.array_equal(made.codes(heads), base.codes(heads))
    assert rounded == (kind == "llama_bias")  # a toy's own table is no nearer so: texts are looked up in it, too
    monkeypatch.setattr(Layers, "round_head", lambda self, hidden, wanted: None)
    monkeypatch.setattr(Layers, "movable", lambda self, name: name not in ("embed", "head"))
    assert facts.kl_after <= calibrated(kind, Scheme(4, 4, 4))[2].kl_after * (0.95 if rounded else 1)


@pytest.mark.real
def test_lifted_matrices_stay(calibrated, tmp_path, tiny):
    from tests.gguf_maker import make_gguf

    path = tmp_path / "m.gguf"
    make_gguf(tiny("llama"), path, "Q4_0 F32")
    base, made, facts = calibrated("llama", model=path)
    lifted = [name for name, entry in base.entries.items() if entry.origin == "lifted" and name != "embed"]
    assert facts.lifted == len(lifted) > 0
    for name in lifted:
        assert made.entries[name] == base.entries[name]
    assert facts.kl_after < facts.kl_before and len(lifted) < len(made.entries) / 2


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", ["llama", "gemma3", "phi3", "smollm3", "olmo2", "granite", "lfm2", "openelm"])
def test_the_decoder_over_batches_is_the_reference(tiny, kind):
    """In one go, and token by token with a cache."""
    checkpoint = open_checkpoint(str(tiny(kind)))
    config, ids = checkpoint.config, np.random.default_rng(3).integers(3, 250, (3, 24))
    wanted = np.stack([run(config, Reference(config, checkpoint, 24), row.tolist()) for row in ids])
    from smolship.export.calibrate.held import Held

    ops = Batched(Ops(config, Held(checkpoint, config.shapes(), torch.device("cpu")), 24), Pool(1))
    with torch.no_grad():
        found = Decoder(config, ops)(torch.from_numpy(ids), torch.tensor([0]))
        np.testing.assert_allclose(found.numpy(), wanted, atol=2e-4)
        ops.caches = [[torch.zeros(3, *shape) for shape in spec.shapes] for spec in config.cache(24)]
        for t in range(24):
            one = Decoder(config, ops)(torch.from_numpy(ids[:, t : t + 1]), torch.tensor([t]))
            np.testing.assert_allclose(one[:, 0].numpy(), wanted[:, t], atol=2e-4)


def test_gradients_of_scales_and_gains_are_those_of_differences(tiny, tmp_path):
    """By moving one logarithm after the other. Of the table, which is the head, too, both uses count."""
    from smolship.export.calibrate.distil import Trained, answers_loss
    from smolship.export.calibrate.held import Calibrated, Held

    checkpoint = open_checkpoint(str(tiny("llama")))
    config = checkpoint.config
    base = write_weights(checkpoint, config, SCHEMES["int4"], tmp_path)
    others, threads = Held(base, config.shapes(), torch.device("cpu")), Pool(1)
    names = ["embed", "layers.0.q", "layers.1.down"], ["layers.0.mlp_norm", "norm"]
    trained = Trained(Calibrated(base), *names, others, threads)
    ids = torch.from_numpy(np.random.default_rng(4).integers(3, 250, (1, 16)))
    wanted = torch.randn(1, 16, config.hidden, generator=torch.Generator().manual_seed(0))
    loss = answers_loss(config, ids, wanted, others("embed"))

    def value() -> float:
        trained.refresh()
        with torch.no_grad():
            return float(loss(Ops(config, trained.get(trained.logs), 16, {}), 0))

    trained.refresh()
    leaves = {name: log.detach().clone().requires_grad_() for name, log in trained.logs.items()}
    matrices = {name: leaves[name] for name in names[0]}
    found = loss(Ops(config, trained.get(leaves), 16, matrices), 0)
    grads = torch.autograd.grad(found, list(leaves.values()))
    for (name, log), grad in zip(trained.logs.items(), grads, strict=True):
        at = int(grad.abs().argmax())
        by_hand = []
        for change in (0.02, -0.02):
            log.view(-1)[at] += change
            by_hand.append(value())
            log.view(-1)[at] -= change
        assert (by_hand[0] - by_hand[1]) / 0.04 == pytest.approx(float(grad.flatten()[at]), rel=0.05), name


@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_gradients_of_a_norm_are_those_of_differences(scale):
    random = torch.Generator().manual_seed(0)
    s, gain = (torch.randn(*n, generator=random, dtype=torch.float64, requires_grad=True) for n in ((2, 3, 4, 8), (8,)))
    assert torch.autograd.gradcheck(lambda s, gain: Norm.apply(s, gain, 1e-3, scale), (s, gain))


def test_compensation_is_nearer_in_what_the_matrix_gives():
    random = torch.Generator().manual_seed(2)
    mixed = torch.randn(64, 64, generator=random) * torch.logspace(0, -2, 64)
    x, weight = torch.randn(500, 64, generator=random) @ mixed, torch.randn(40, 64, generator=random)
    threads = Pool(1)
    of_x = Hessian(64, threads)
    of_x.add(x[:300])
    of_x.add(x[300:])
    h = of_x.whole()
    torch.testing.assert_close(h, x.t() @ x, rtol=1e-4, atol=1e-3)
    root = inverse_root(h)
    assert root is not None
    found, plain = compensate(weight, root, 4, 32, threads), quantize(weight.numpy(), 4, 32)
    errors = [float(((torch.from_numpy(q.dequantize()) - weight) @ x.t()).square().sum()) for q in (found, plain)]
    assert errors[0] < 0.6 * errors[1]
    assert inverse_root(torch.full((4, 4), torch.nan)) is None and inverse_root(torch.zeros(4, 4)) is None
    one = inverse_root(torch.diag(torch.tensor([1.0, 0.0, 2.0, 1.0])))  # an input that is always zero
    assert one is not None and bool(one.isfinite().all())


def test_a_gpu_is_taken_where_there_is_one(monkeypatch):
    made: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(pool, "Pool", lambda threads, device: made.append(device) or Pool(1))
    for device in (None, "cpu"):
        with pool.open_pool(device=device):
            pass
    assert made == ["cuda", "cpu"] and Pool(8, "cuda").threads == 1


@pytest.mark.real
def test_an_export_says_how_and_a_target_can_be_added(tiny, tmp_path, monkeypatch):
    from smolship.export import add_targets

    monkeypatch.setenv("SMOLSHIP_CACHE", str(tmp_path / "kept"))
    text, out = tmp_path / "a.txt", tmp_path / "out"
    text.write_text("".join(f"{i} and " for i in range(400)))
    said: dict[str, str] = {}
    options: dict[str, Any] = {"to": ["gguf"], "context": 64, "probe_tokens": 0, "calibrate": text}
    bundle = export(tiny("llama"), out, **options, progress=lambda s, what, *_: said.update({s: what}))
    facts = bundle.manifest.quantization.calibration
    assert facts and facts.text == "file" and facts.sha256 and facts.seed == 0 and "calibrate" in bundle.manifest.steps
    listed = json.loads((out / "weights.json").read_text())
    assert listed["digest"] == bundle.manifest.weights_digest and listed["calibration"] == asdict(facts)
    export(tiny("llama"), tmp_path / "again", **options, progress=lambda s, what, *_: said.update({s: what}))
    assert said["calibrate"].startswith("kept from 20")
    assert open_bundle(tmp_path / "again").manifest.weights_digest == bundle.manifest.weights_digest
    with pytest.raises(InputError, match="give it: --calibrate FILE"):
        add_targets(out, ["onnx"], model=tiny("llama"))
    (tmp_path / "b.txt").write_text(text.read_text() + "more")
    with pytest.raises(InputError, match="not the text"):
        add_targets(out, ["onnx"], model=tiny("llama"), calibrate=tmp_path / "b.txt")
    more = add_targets(out, ["onnx"], model=tiny("llama"), calibrate=text)
    assert set(more.manifest.targets) == {"gguf", "onnx"} and more.manifest.quantization.calibration == facts
    assert not any(target.wrong for target in compare(more, ["gguf", "onnx"]))  # read back out of the files


@pytest.mark.real
def test_the_forecast_has_the_step(tiny, monkeypatch):
    from smolship.export.forecast import forecast
    from smolship.export.forecast.costs import REFERENCE

    monkeypatch.setattr("smolship.export.forecast.step.measure_speed", lambda: REFERENCE)
    options: dict[str, Any] = {"to": ["gguf"], "context": 64, "probe_tokens": 0}
    plain, found = forecast(tiny("llama"), **options), forecast(tiny("llama"), **options, calibrate="self")
    assert "calibrate" not in plain.steps and found.steps["calibrate"].seconds > 0
    assert found.disk_bytes > plain.disk_bytes
    best = forecast(tiny("llama"), **options, calibrate="self", effort="best")
    assert best.steps["calibrate"].seconds > found.steps["calibrate"].seconds
