"""The comparison with other projects, on a tiny model, with our own artifacts, llama.cpp and peers that fail."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from smolship.export.checkpoints import open_checkpoint
from smolship.runtime.bundle import open_bundle
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.files import sha256
from smolship.tools.peers import lab, rows
from smolship.tools.peers.__main__ import run
from smolship.tools.peers.lab import Found, hash_of
from smolship.tools.peers.onnxfile import open_onnx
from smolship.tools.peers.process import Process, environment
from smolship.tools.peers.rows import EXECUTORCH, ROWS, Row, choose
from smolship.tools.peers.shapes import SHAPES, make_shape
from smolship.tools.peers.table import facts, tables

LLAMA, ONNX = "llama.cpp Q4_0", "smolship onnx int4"
BROKEN = Row("broken", "llamacpp", 4, {"type": "Q9_9"}, ONNX)
TOKENS, CONTEXT, ROUNDS = 256, 128, 2
CALLS = ["--tokens", str(TOKENS), "--context", str(CONTEXT), "--rounds", str(ROUNDS), "--threads", "2", "--json"]


pytestmark = pytest.mark.real  # six exports, each measured in a process of its own


@pytest.fixture(scope="module")
def asked() -> Any:
    """What workers are asked to do, from the first test of this file on."""
    found: list[str] = []
    real = Process.ask

    def ask(self: Process, do: str, *args: Any, **kwargs: Any) -> Any:
        found.append(do)
        return real(self, do, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Process, "ask", ask)
        yield found


@pytest.fixture(scope="module")
def compared(tiny: Any, asked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(what the command said, its cache, what it asked of workers), of a first run."""
    cache = tmp_path_factory.mktemp("peers")
    return command(tiny("llama"), cache), cache, list(asked)


def command(model: Path, cache: Path, *more: str) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr(rows, "ROWS", [row for row in ROWS if row.name in (ONNX, LLAMA)] + [BROKEN])
        patch.setattr("builtins.print", lambda text: printed.append(text))
        assert run([str(model), "--cache", str(cache), *CALLS, *more]) == 0
    return json.loads(printed[0])


def by_name(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["row"]: row for row in told["rows"]}


def test_every_row_is_complete_or_says_why(compared):
    told, _, _ = compared
    assert list(by_name(told)) == [ONNX, LLAMA, "broken"]
    for row in by_name(told).values():
        if row["row"] == "broken":
            assert "KeyError: 'Q9_9'" in row["failed"] and row["hash"] is None and row["fidelity"] is None
            continue
        assert row["failed"] is None
        for figure in ("file_bytes", "export_seconds", "export_peak_bytes", "load_ms", "anonymous_bytes"):
            assert row[figure] > 0, (row["row"], figure)
        for phase, sizes in (("prefill", {"128"}), ("decode", {"32", "64"})):
            speeds = row[f"{phase}_tokens_per_s"]
            assert set(speeds) == sizes and all(s["repeats"] == ROUNDS and s["low"] > 0 for s in speeds.values())
        assert row["fidelity"]["tokens"] == TOKENS and row["versions"]
    assert "AVX" in told["llama_cpp"] or "NEON" in told["llama_cpp"]


def test_one_hash_names_the_files_that_were_measured_and_judged(compared):
    told, cache, _ = compared
    found = [row for row in told["rows"] if row["hash"]]
    assert len({row["hash"] for row in found}) == len(found) == 2
    for row in found:
        assert row["hash"] == row["fidelity"]["hash"] == hash_of(row["files"])
        (record,) = [p for p in cache.glob("*/*/row.json") if json.loads(p.read_text())["row"] == row["row"]]
        assert {name: sha256(record.parent / name) for name in row["files"]} == row["files"]
        assert row["file_bytes"] == sum((record.parent / name).stat().st_size for name in row["files"])
    assert [row["row"] for row in found if row["weights_digest"]] == [ONNX]


def test_fidelity_is_that_of_four_bits(compared):
    told, _, _ = compared
    for name, row in by_name(told).items():
        if row["fidelity"]:
            said = row["fidelity"]
            assert 0.01 < said["kl"] < 0.1 and 0 < said["error"] < said["kl"] / 4, name
            assert said["prefills"] == 8 and said["prefill_kl"] == pytest.approx(
                said["kl"], rel=0.6
            )  # prefill works too


def test_speed_is_compared_with_ours_of_the_same_bits(compared):
    told, _, _ = compared
    for row in told["rows"]:
        assert set(row["ours_over_this"]) == ({ONNX} if row["row"] == LLAMA else set())
    ratio = by_name(told)[LLAMA]["ours_over_this"][ONNX]["decode"]["32"]
    ours, theirs = (by_name(told)[name]["decode_tokens_per_s"]["32"] for name in (ONNX, LLAMA))
    assert ours["low"] / theirs["high"] <= ratio <= ours["high"] / theirs["low"]


def test_ratios_pair_the_rounds():
    ours, theirs = Found(ROWS[0]), Found(ROWS[-1])
    ours.rounds = [{"prefill": {"8": a}, "decode": {"8": a}} for a in (10.0, 20.0, 400.0)]
    theirs.rounds = [{"prefill": {"8": a}, "decode": {"8": a}} for a in (5.0, 5.0)]  # it failed in the third
    assert theirs.ratio(ours) == {"prefill": {"8": 3.0}, "decode": {"8": 3.0}}


def test_llama_cpp_is_compared_on_our_weights_too():
    """Engine against engine: the GGUF's row with that of the .pte, at each width."""
    every = [Found(row) for row in ROWS if row.ours]
    for found, speed in zip(every, (6.0, 5.0, 4.0, 3.0, 2.0, 1.0), strict=True):
        found.rounds = [{"prefill": {"8": speed}, "decode": {"8": speed}}]
    told = {row["row"]: row for row in facts(every)}
    for bits in ("int4", "int8"):
        row = told[f"smolship gguf {bits}"]
        assert row["base"] == f"smolship executorch {bits}"
        assert set(row["ours_over_this"]) == {f"smolship {target} {bits}" for target in ("executorch", "onnx")}
    assert told["smolship gguf int4"]["ours_over_this"][EXECUTORCH]["decode"] == {"8": 3.0}
    assert Found(ROWS[0]).speeds("decode") == {}


def test_a_second_run_measures_and_keeps_the_rest(tiny, compared, asked):
    told, cache, first = compared
    # The broken row is tried again in each run.
    assert (first.count("export"), first.count("fidelity"), first.count("reference")) == (3, 2, 1)
    asked.clear()
    again = command(tiny("llama"), cache)
    assert (asked.count("export"), asked.count("fidelity"), asked.count("reference")) == (1, 0, 0)
    assert asked.count("measure") == 2 * ROUNDS
    for row, before in zip(again["rows"], told["rows"], strict=True):
        for kept in ("hash", "fidelity", "export_seconds"):
            assert row[kept] == before[kept]


def test_an_altered_artifact_is_refused(tiny, compared, tmp_path):
    _, cache, _ = compared
    shutil.copytree(cache, tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob(f"*/{next(r for r in ROWS if r.name == LLAMA).slug}-*/model.gguf")
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    told = by_name(command(tiny("llama"), tmp_path / "cache", "--only", f"{LLAMA},{ONNX}", "--rounds", "1"))
    row = told[LLAMA]
    assert told[ONNX]["failed"] is None
    assert "altered" in row["failed"] and row["fidelity"] is None and row["decode_tokens_per_s"] == {}


@pytest.mark.parametrize("shared", [True, False])
def test_foreign_onnx_files_run_as_our_engine_runs_ours(compared, shared):
    _, cache, _ = compared
    (bundle,) = cache.glob("*/smolship-onnx-int4-*/bundle")
    ids = np.random.default_rng(0).integers(0, 300, 40)
    facts = {"vocab": 300, "context": CONTEXT, "kv_heads": 2, "head_dim": 32}
    # The same calls on both: one rounding of an activation that falls otherwise in another shape moves all after it.
    with (
        open_bundle(bundle).session("onnx", 1) as ours,
        open_onnx(bundle / "onnx" / "model.onnx", facts, 1, shared) as session,
    ):
        assert np.allclose(session.forward(ids[:20]), ours.forward(ids[:20]), atol=1e-5)
        assert np.allclose(session.forward(ids[20:], "all"), ours.forward(ids[20:], "all"), atol=1e-5)
        session.rewind(7)
        ours.rewind(7)
        assert np.allclose(session.forward(ids[7:]), ours.forward(ids[7:]), atol=1e-5)


def test_the_tables_show_every_row(compared):
    told, _, _ = compared
    console = Console(width=150, color_system=None)
    with console.capture() as capture:
        for table in tables(told["rows"], told["rounds"]):
            console.print(table)
    text = capture.get()
    for row in told["rows"]:
        assert text.count(row["row"]) == 2
        assert not row["hash"] or row["hash"][:8] in text
    assert text.count("unavailable") >= 4 and "onnx int4" in text


def test_choosing_brings_what_is_compared_with():
    assert [row.name for row in choose(["genai builder int4 + int8 head tuned"], ["4"])] == [
        ONNX,
        "genai builder int4 + int8 head tuned",
    ]
    assert choose([], ["4", "8"]) == ROWS
    assert {row.bits for row in choose([], ["8"])} == {8}
    with pytest.raises(InputError, match="unknown row"):
        choose(["coreml"], ["4"])
    with pytest.raises(InputError, match="no row"):
        choose(["Q4_0"], ["8"])


def test_every_peer_names_what_it_is(compared):
    assert len({row.name for row in ROWS}) == len({row.slug for row in ROWS}) == len(ROWS)
    for row in ROWS:
        module = rows.peer_module(row.peer)
        bases = {r.name for r in ROWS if r.ours and r.bits == row.bits}
        assert row.base in bases or (row.ours and not row.base)
        # Exact versions: a looser torch would fetch gigabytes for a GPU.
        assert all("==" in requirement for requirement in module.REQUIREMENTS)


def test_bad_requests(tiny, tmp_path, capsys):
    assert run(["--rounds", "1"]) == 2 and run([str(tmp_path)]) == 2
    assert run(["--shape", "unheard-of", "--cache", str(tmp_path)]) == 2


def test_an_environment_that_cannot_be_made(tmp_path):
    with pytest.raises(SetupError, match="environment of nobody cannot be made"):
        environment(tmp_path, "nobody", [str(tmp_path / "nothing.whl")])


def test_what_our_own_code_refuses_is_said_as_it_is(tmp_path):
    with Process(Path(sys.executable), tmp_path / "log") as process:
        with pytest.raises(SetupError, match=r"export failed\n.*unknown quantization.*int3"):
            process.ask(
                "export",
                peer="ours",
                source="x",
                folder=str(tmp_path),
                options={"target": "onnx", "quant": "int3", "context": 8},
            )
        assert process.ask("versions", packages=["numpy", "no-such-package"]).keys() == {"numpy"}  # it goes on


def test_a_peer_that_hangs_is_ended(tmp_path):
    with Process(Path(sys.executable), tmp_path / "log") as process, pytest.raises(SetupError, match=r"more than 0 s"):
        process.ask("versions", limit_s=0.01, packages=[])


def test_a_shape_is_a_checkpoint(tmp_path, monkeypatch):
    small = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "vocab_size": 400,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    monkeypatch.setitem(SHAPES, "small", SHAPES["smollm3-3b"] | small)
    folder = make_shape("small", 2, tmp_path)
    checkpoint = open_checkpoint(str(folder))
    assert len(checkpoint.config.layers) == 2 and checkpoint.config.tied_head
    assert 0.018 < float(checkpoint.read("embed").std()) < 0.022
    assert not np.array_equal(checkpoint.read("layers.0.q"), checkpoint.read("layers.1.q"))
    assert (checkpoint.read("norm") == 1).all()
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert make_shape("small", 2, tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    real = SHAPES["smollm3-3b"]
    assert (real["hidden_size"], real["intermediate_size"], real["vocab_size"]) == (2048, 11_008, 128_256)


def test_our_sources_name_our_exports():
    ours, theirs = (lab._sources(peer) for peer in ("ours", "genai"))
    assert len(theirs) == 1 and len(ours) > 20
