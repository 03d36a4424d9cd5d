"""`bench --via llama-bench`: what is asked of llama.cpp's own program, and what is taken of its answer. A stand-in
answers as that does, in the keys of build 0c1e570."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smolship.runtime.errors import GateError
from smolship.tools.cli import run
from smolship.tools.devices import facts, llama_bench
from smolship.tools.devices.llama_bench import checked
from tests.tools.local_link import LocalLink

TOOL = """#!/usr/bin/env python3
import itertools, json, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
open({log!r}, "a").write(json.dumps(given) + "\\n")
print("warning: something", file=sys.stderr)
assert open(given["-m"], "rb").read(4) == b"GGUF" and given["-o"] == "json" and given["-ngl"] == "0"
lists = [[int(n) for n in given[name].split(",")] for name in ("-p", "-n", "-d")]
rows = []
for p, n, d in itertools.product(*lists):
    row = dict(build_commit="b1234", n_prompt=p, n_gen=n, n_depth=d, n_threads=int(given["-t"]))
    rows.append(row | dict(samples_ns=[1000000 * (p + n)] * int(given["-r"])))
{change}
print(json.dumps(rows))
"""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """there(change) -> the log of a llama-bench on this machine as a device; `change` is done to its rows."""

    def make(change: str = "") -> Path:
        log, tool = tmp_path / "log", tmp_path / "bin" / "llama-bench"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(TOOL.format(log=str(log), change=change))
        tool.chmod(0o755)
        return log

    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setattr(llama_bench, "link_to", lambda address: LocalLink())
    monkeypatch.setattr(llama_bench, "folders", lambda facts, uri: [str(tmp_path / "device")])
    monkeypatch.setattr("smolship.tools.devices.store.mount_of", lambda path, mounts: None)
    return make


@pytest.fixture
def bench(tiny_bundle: Any) -> Callable[..., int]:
    def ask(*more: str) -> int:
        words = ["-t", "gguf", "--device", "ssh://test", "--via", "llama-bench", "--repeats", "3", *more]
        return run(["bench", str(tiny_bundle("llama", "int4")), *words])

    return ask


def test_its_rows_are_shown_and_kept(there: Any, bench: Any, tmp_path: Path, capsys: Any) -> None:
    log = there()
    assert bench("--threads", "1", "--record", str(tmp_path / "rows"), "--record-format", "llama-bench") == 0
    out, err = capsys.readouterr()
    assert "1,000.0 tokens/s" in out and "decode after" in out and "b1234" in out and "prefill" in out
    assert "what it answers is not checked" in " ".join(err.split())
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(one["-t"], one["-r"]) for one in asked] == [("1", "3")] * 2 and asked[0]["-n"] == asked[1]["-p"] == "0"
    rows = json.loads((tmp_path / "rows" / "gguf.json").read_text())
    assert all(row["build_commit"] == "b1234" and len(row["samples_ns"]) == 3 for row in rows)
    assert not (tmp_path / "device/runs/lock").exists()


def test_its_words_are_no_markup(there: Any, bench: Any, capsys: Any) -> None:
    there("rows[0]['build_commit'] = rows[0]['backends'] = rows[0]['model_type'] = '[/b] \\x1b[31m'")
    assert bench() == 0
    out = capsys.readouterr().out
    assert "[/b]" in out and "\x1b[31m" not in out


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    "change",
    ["rows[0]['n_prompt'] += 1", "rows[0]['samples_ns'] = [1]", "rows[0]['n_threads'] = 7", "rows = {}", "rows = []"],
)
def test_another_measurement_is_refused(there: Any, bench: Any, capsys: Any, change: str) -> None:
    there(change)
    assert bench() == 1
    assert "did not measure what it was asked for" in capsys.readouterr().err


def test_an_answer_that_is_none_is_the_device_s_fault(there: Any, bench: Any, capsys: Any) -> None:
    there("print('loading a backend')")
    assert bench() == 3
    assert "ssh://test: llama-bench's answer is not valid JSON" in capsys.readouterr().err


@pytest.mark.parametrize("times", [["1"], [0], [-1], [True], [1.5], None, [1, 1], [10**400]])
def test_times_that_are_none(times: Any) -> None:
    row = {"n_prompt": 8, "n_gen": 0, "n_depth": 0, "n_threads": 1, "samples_ns": times}
    with pytest.raises(GateError):
        checked([row], [(8, 0, 0)], 1, 1)
    assert checked([row | {"samples_ns": [5]}], [(8, 0, 0)], 1, 1)


@pytest.mark.real
def test_one_that_fails_has_its_last_words(there: Any, bench: Any, capsys: Any) -> None:
    there("sys.exit('error: invalid parameter for argument: -d')")
    assert bench() == 3
    said = capsys.readouterr().err
    assert "exit status 1" in said and "invalid parameter for argument: -d" in said


def test_where_there_is_none(there: Any, bench: Any, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(facts, "TOOLS", ())
    assert bench() == 3
    assert "has no llama-bench" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--min-decode", "1"], ["--sustained", "1s"], ["--cool", "1s"], ["--record", "x"]])
def test_what_it_cannot_say_is_refused(bench: Any, capsys: Any, tmp_path: Path, monkeypatch: Any, more: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench(*more) == 2
    assert "llama-bench tells times alone" in capsys.readouterr().err


def test_only_gguf_on_a_device(tiny_bundle: Any, capsys: Any) -> None:
    for words in (["-t", "onnx", "--device", "ssh://test"], ["-t", "gguf"]):
        assert run(["bench", str(tiny_bundle("llama", "int4")), *words, "--via", "llama-bench"]) == 2
        assert "is for GGUF files on a device" in capsys.readouterr().err
