"""The GGUF target on SmolLM2-135M-Instruct: parity, tokenizer, answers, and damage that parity must see."""

from __future__ import annotations

import json
import shutil

import pytest

from smolship.export import export
from smolship.runtime import open_bundle
from smolship.runtime.chat import Chat
from smolship.tools.tokenizers import compare_all
from tests.bundles import double_scales, parity

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def bundle(demo_model, tmp_path_factory):
    """int4, with probes of 512 tokens."""
    out = tmp_path_factory.mktemp("gguf") / "bundle"
    export(demo_model, out, to=["gguf"], probe_tokens=512)
    return out


def test_every_stage_passes(bundle, capsys):
    code, (report,) = parity(bundle, capsys)
    checks = {check["what"]: check for check in report["checks"]}
    print(json.dumps({what: [check["kl"], check["floor"], check["bound"]] for what, check in checks.items()}))
    assert code == 0
    assert checks["simulated → decode"]["positions"] == 512
    assert checks["simulated → decode"]["kl"] < 0.01
    assert len(report["drift"]) == 30, "the engine shows its cache"


def test_lowering_takes_little_memory(bundle):
    """Most of it is Python with torch: the model is written in pieces."""
    assert open_bundle(bundle).manifest.steps["lower gguf"].peak_bytes < 0.5e9
    assert (bundle / "gguf" / "model.gguf").stat().st_size < 95e6


def test_the_tokenizer_is_the_models_own(bundle):
    rows = compare_all(open_bundle(bundle))
    assert [row.mismatches for row in rows] == [0, 0]
    assert all(row.judged and row.strings > 700 for row in rows)


def test_it_answers_and_remembers(bundle):
    opened = open_bundle(bundle)
    with opened.session("gguf", threads=2) as session:
        chat = Chat(session, opened.tokenizer, opened.template, opened.stop_ids)
        assert "Paris" in "".join(chat.ask("What is the capital of France?", max_tokens=32))
        assert "".join(chat.ask("And of Italy?", max_tokens=32)).strip()
        assert chat.reused > 20


def test_doubled_scales_are_seen_and_placed(bundle, demo_model, tmp_path, capsys):
    damaged = shutil.copytree(bundle, tmp_path / "damaged")
    double_scales(damaged, demo_model, "gguf", "layers.12.k")
    code, (report,) = parity(damaged, capsys, "--quick")
    assert code == 1
    assert "layer 12's norm, k or v" in report["found"]
