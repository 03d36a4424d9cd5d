"""The comparison as a command, on a small model that is trained in it: our rows, llama.cpp's, genai's and torchao's."""

from __future__ import annotations

import json
from dataclasses import replace
from math import log

import numpy as np
import pytest

from smolship.export.checkpoints import open_checkpoint
from smolship.tools.fidelity import frontier, train
from smolship.tools.fidelity.__main__ import run
from smolship.tools.fidelity.rows import BASE
from smolship.tools.fidelity.train import Recipe
from smolship.tools.peers import llamacpp

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]  # a training, and a process for each row
SKIPPED = "self,text,table,g64,g128,head,Q4_K,IQ4,Q8"
RECIPE = Recipe(vocabulary=512, hidden=128, inner=128, layers=2, context=64, batch=8, steps=40, warm_up=5)
KINDS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def nothing(*told):
    pass


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("fidelity")


@pytest.fixture(scope="module")
def small(cache):
    return train.small_model(cache, nothing, RECIPE)


def test_a_small_model_learns_and_is_trained_once(small, cache):
    told = json.loads((small / "training.json").read_text())
    assert told["held_out_loss"] < 0.9 * log(RECIPE.vocabulary)
    assert train.small_model(cache, lambda *told: pytest.fail("trained again"), RECIPE) == small
    checkpoint = open_checkpoint(str(small))
    assert checkpoint.config.tied_head and checkpoint.slots["layers.0.q"].dtype == "F32"
    assert replace(RECIPE, seed=1).key != RECIPE.key


@pytest.fixture(scope="module")
def told(small, cache):
    """What the command says as JSON, of a row or two of each maker."""
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *text, **how: printed.append(" ".join(map(str, text))))
        patch.setattr(frontier, "CALIBRATION_TOKENS", 1024)
        calls = ["--cache", str(cache), "--tokens", "1024", "--longest", "64", "--threads", "1", "--json"]
        assert run([str(small), *calls, "--skip", SKIPPED, "--page", str(cache / "page.html")]) == 0
    return json.loads(printed[-1])


def test_every_row_is_read_back_and_judged(told, cache):
    rows = {row["row"]: row for row in told["rows"]}
    assert told["tokens"] == 1024 and told["documents"] >= 16
    assert {row["row"]: row["failed"] for row in told["rows"] if row["failed"]} == {}
    for name, row in rows.items():
        assert row["kl"]["low"] < row["kl"]["value"] < row["kl"]["high"], name
        assert row["stored_bytes"] <= row["file_bytes"] * 1.3, name
    assert rows[BASE]["ratio"] == {"value": 1, "low": 1, "high": 1}
    for name, row in rows.items():
        assert (row["ratio"]["value"] < 0.1) == ("int8" in name) and 4 < row["bits_per_weight"] < 9.5, name
    assert rows[f"{BASE} imatrix"]["stored_bytes"] == rows[BASE]["stored_bytes"]
    assert rows[f"{BASE} imatrix"]["kl"] != rows[BASE]["kl"]
    assert rows["llama.cpp Q4_0"]["kl"]["value"] == pytest.approx(rows["genai int4"]["kl"]["value"], rel=1)
    assert any(row["frontier"] for row in told["rows"])
    assert (cache / "page.html").read_text().count("<circle") == len(rows)


def test_importance_reaches_the_quantizer(small, tmp_path):
    """With all importance on one input of each block, that one is nearer to the original than it would be."""
    checkpoint = open_checkpoint(str(small))
    weight = checkpoint.read("layers.0.o")
    values = np.full(weight.shape[1], 1e-6, np.float32)
    values[::32] = 1
    matrices = {f"blk.{i}.{kind}.weight": values for i in range(2) for kind in KINDS}
    np.savez(tmp_path / "imatrix.npz", **matrices)
    off = {}
    for given in ("without", "with"):
        (tmp_path / given).mkdir()
        options = {"type": "Q4_0", "context": 64}
        if given == "with":
            options["imatrix"] = str(tmp_path / "imatrix.npz")
        llamacpp.export(small, tmp_path / given, options)
        held = open_checkpoint(str(tmp_path / given / "model.gguf"))
        off[given] = np.abs(held.read("layers.0.o") - weight)[:, ::32].mean()
    assert off["with"] < 0.5 * off["without"]
