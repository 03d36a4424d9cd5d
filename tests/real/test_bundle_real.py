"""The whole job on SmolLM2-135M-Instruct: export, parity, answers, chat, and damage that parity must see."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from smolship.export.checkpoints import open_checkpoint
from smolship.runtime import open_bundle
from smolship.runtime.bundle import Bundle
from smolship.runtime.chat import Chat
from smolship.runtime.digits import IDS, WHAT
from smolship.tools.cli import run
from tests.bundles import double_scales, parity, relower
from tests.layers import with_rotary

pytestmark = pytest.mark.real
ENGINES = ["executorch", "onnx"]


def test_every_stage_passes_on_2048_tokens(real_bundle, capsys):
    code, reports = parity(real_bundle, capsys)
    assert code == 0
    for report in reports:
        checks = {check["what"]: check for check in report["checks"]}
        assert checks["simulated → decode"]["positions"] == 2048
        assert checks["original → our decoder"]["kl"] < 1e-9
        assert checks["original → quantized"]["kl"] < 0.5
        assert report["drift"] and len(report["greedy"]) == 2
        assert report["depth"] == report["context"] >= 2048
        assert int(checks[WHAT]["at"].split()[0]) >= 20  # of 30 digits


def test_what_the_manifest_says(real_bundle):
    manifest = open_bundle(real_bundle).manifest
    assert manifest.quantization.share_at_4_bits >= 0.95
    assert manifest.steps["lower onnx"].peak_bytes < 0.8e9
    assert manifest.steps["lower executorch"].peak_bytes < 2.5e9


@pytest.mark.parametrize("quant", ["int8", "none"])
def test_other_precisions_pass_too(demo_model, tmp_path, quant, capsys):
    out = tmp_path / quant
    assert run(["export", str(demo_model), "-o", str(out), "--quant", quant, "--probe-tokens", "256"]) == 0
    capsys.readouterr()
    code, reports = parity(out, capsys)
    assert code == 0
    total = {report["engine"]: report["checks"][-1]["kl"] for report in reports}
    assert max(total.values()) < {"int8": 0.1, "none": 1e-6}[quant], total


@pytest.mark.parametrize("engine", ENGINES)
def test_doubled_scales_are_seen_and_placed(real_bundle, demo_model, tmp_path, engine, capsys):
    damaged = shutil.copytree(real_bundle, tmp_path / "damaged")
    double_scales(damaged, demo_model, engine, "layers.12.k")
    code, (report,) = parity(damaged, capsys, "--quick", "-e", engine)
    assert code == 1
    assert {c["stage"] for c in report["checks"] if not c["passed"]} == {"engine"}
    assert "layer 12's norm, k or v" in report["found"]


@pytest.mark.parametrize("engine", ENGINES)
def test_digits_that_change_places_are_seen(real_bundle, monkeypatch, engine, capsys):
    """An engine that says 6 for each 9, in the repeat of a long number alone; the other tokens are as they were."""
    bundle = open_bundle(real_bundle)
    text = bundle.probes().arrays[IDS].tolist()
    six, nine = (bundle.tokenizer.token_to_id(digit) for digit in "69")
    sound = Bundle.session

    def planted(*args, **options):
        session = sound(*args, **options)
        run, held = session._run, [0] * session.capacity

        def swapped(ids, at):
            held[at : at + len(ids)] = ids.tolist()
            logits = run(ids, at).copy()
            if held[:8] == text[:8]:
                logits.ravel()[[six, nine]] = logits.ravel()[[nine, six]]
            return logits

        session._run = swapped
        return session

    monkeypatch.setattr(Bundle, "session", planted)
    code, (report,) = parity(real_bundle, capsys, "--quick", "-e", engine)
    (digits,) = (check for check in report["checks"] if check["what"] == WHAT)
    assert code == 1 and [check["what"] for check in report["checks"] if not check["passed"]] == [WHAT]
    assert f"token {six} for {nine}" in digits["note"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_wrong_rope_theta_is_seen(real_bundle, demo_model, tmp_path, engine, capsys):
    damaged = shutil.copytree(real_bundle, tmp_path / "damaged")
    config = open_checkpoint(str(demo_model)).config
    relower(damaged, demo_model, engine, with_rotary(config, lambda rotary: replace(rotary, theta=10_000.0)))
    assert parity(damaged, capsys, "--quick", "-e", engine)[0] == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_it_answers(real_bundle, engine, capsys):
    question = "What is the capital of France? Answer in one sentence."
    assert run(["generate", str(real_bundle), question, "-e", engine, "--temperature", "0"]) == 0
    assert "Paris" in capsys.readouterr().out


@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_turn_reuses_the_cache(real_bundle, engine):
    """That a reused cache says what a cold one says is parity's to judge: int8 activations let near-ties fall either
    way between tokens that were prefilled and the same tokens decoded."""
    bundle = open_bundle(real_bundle)
    with bundle.session(engine, 2) as session:
        chat = Chat(session, bundle.tokenizer, bundle.template, bundle.stop_ids)
        first = "".join(chat.ask("Name three colours.", 48))
        second = "".join(chat.ask("Which of them is the sky's?", 48))
        rendered = bundle.tokenizer.encode(bundle.template.render(chat.messages[:3]), special=False)
    answered = len(bundle.tokenizer.encode(first))
    assert first and second
    assert answered < chat.reused < len(rendered), "the first turn, its answer included, is not fed again"
