"""`generate --device`: the answer of the device is the local one, and what is refused before anything is sent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from smolship.runtime.bundle import Bundle
from smolship.runtime.case import case_of
from smolship.runtime.child import Listener
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.execute import execute
from smolship.runtime.generate import Sampling
from smolship.runtime.plan import Answer, Plan, Text
from smolship.tools.cli import run
from smolship.tools.devices import answering, opening
from smolship.tools.devices.job import Job, Watch, limit, supervised
from smolship.tools.devices.opening import Place
from smolship.tools.devices.runners import Runner, python_runner
from tests.runtime.fakes import FakeSession
from tests.tools.local_link import LocalLink
from tests.tools.test_chat_endings import ENDS, LETTERS, Scripted
from tests.tools.test_device_job import LEADS, gone

DEVICE = ["--device", "ssh://test"]
ASKS = Plan(
    "generate",
    "onnx",
    "onnx",
    {"file": "model.onnx"},
    1,
    texts=(Text.plain(np.array([5, 6])),),
    answer=Answer(4, np.array([2], np.int32), Sampling()),
)


@pytest.fixture
def say(tiny_bundle, monkeypatch, capsys):
    """say(session, options) -> (exit code, standard output, standard error) of an answer by `session`, here or as a
    device's."""
    folder = str(tiny_bundle("llama", "int4"))

    def ask(make, *options):
        def answer(plan, progress):
            return execute(plan, make(), "", progress)

        @contextmanager
        def executing(device, bundle, targets, update, **limits):
            yield Place(device, lambda name: SimpleNamespace(execute=answer), 1)

        monkeypatch.setattr(Bundle, "session", lambda self, target, threads: make())
        monkeypatch.setattr(answering, "executing", executing)
        code = run(["generate", folder, "hi", "-t", "onnx", *options])
        return code, *capsys.readouterr()

    return ask


@pytest.mark.parametrize("end", ENDS)
def test_it_is_the_local_answer(say, end):
    """Its text, the line that says why it ended, and the JSON but for the times."""
    tokens, options, capacity, words = ENDS[end]
    here = say(lambda: Scripted(tokens, capacity), *options)
    there = say(lambda: Scripted(tokens, capacity), *options, *DEVICE)
    assert here[:2] == there[:2] and words in there[2] and "first after" in there[2]
    code, out, _ = say(lambda: Scripted(tokens, capacity), *options, *DEVICE, "--json")
    said = json.loads(out)
    assert code == 0 and said["end"] == end and said["ttft_s"] >= 0 and said["text"] == there[1].removesuffix("\n")


def test_the_same_seed_gives_the_same_text(say):
    options = ["--temperature", "1.5", "--max-tokens", "20", "--json"]
    texts = []
    for seed, device in (("1", []), ("1", DEVICE), ("2", DEVICE)):
        code, out, _ = say(lambda: FakeSession(capacity=128), *options, "--seed", seed, *device)
        assert code == 0 and json.loads(out)["sampling"]["seed"] == int(seed)
        texts.append(json.loads(out)["text"])
    assert texts[0] == texts[1] != texts[2]


def test_ctrl_c_ends_it_after_what_was_said(say):
    code, out, err = say(lambda: Scripted([*LETTERS, -1]), *DEVICE)
    assert code == 130 and out.endswith("\n") and len(out) > 1
    assert err.index("[interrupted; ") < err.index("smolship: interrupted")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-t", "executorch", "--temperature", "0.7", *DEVICE], "executed there without Python"),
        (["-t", "executorch", "--repetition-penalty", "1.1", *DEVICE], "--temperature 0 --repetition-penalty 1"),
        (["-t", "onnx", "--device", "telnet://pi"], "not the name of a device"),
    ],
    ids=["temperature", "penalty", "no device"],
)
def test_what_is_refused_before_a_link_is_made(tiny_bundle, monkeypatch, capsys, options, words):
    monkeypatch.setattr(opening, "link_to", None)
    assert run(["generate", str(tiny_bundle("llama", "int4")), "hi", *options]) == 2
    assert words in capsys.readouterr().err


def test_a_prompt_that_does_not_fit_is_refused_before(tiny_bundle, monkeypatch, capsys):
    monkeypatch.setattr(opening, "link_to", None)
    line = ["generate", str(tiny_bundle("llama", "int4")), "the quick brown fox " * 100, "-t", "onnx", *DEVICE]
    assert run(line) == 2 and "the prompt is longer than the context" in capsys.readouterr().err


def test_a_plan_has_no_more_time_than_its_context_takes(tiny_bundle):
    bundle = Bundle(tiny_bundle("llama", "int4"))
    plan = answering.plan_of(bundle, "onnx", [1, 2], 10**9, Sampling(), 1)
    assert plan.answer and plan.answer.max_tokens == bundle.manifest.context + 1 and limit(plan) < 1000


class Heard(Listener):
    def __init__(self, then=lambda: None):
        self.ids, self.then = [], then

    def tokens(self, ids):
        self.ids += ids
        self.then()


def job(folder, code):
    runner = Runner("fake", {}, [sys.executable, "-c", f"import sys, os, time, json\n{LEADS}{code}"])
    return Job(LocalLink(), str(folder), str(folder), str(folder), runner, "0" * 64)


def test_tokens_come_before_the_end_and_nothing_is_left(tmp_path):
    code = "print(json.dumps({'tokens': [7, 8]})); print(json.dumps({'error': ['InputError', 'no']})); sys.exit(2)"
    heard = Heard()
    with pytest.raises(InputError, match="no"):
        job(tmp_path, code).execute(ASKS, heard)
    assert heard.ids == [7, 8] and not list(tmp_path.iterdir())


@pytest.mark.real
def test_an_interrupt_leaves_nothing(tmp_path):
    heard = Heard(lambda: threading.Timer(1.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start())
    code = "print(json.dumps({'tokens': [os.getpid()]}), flush=True); time.sleep(99)"
    with pytest.raises(KeyboardInterrupt):
        job(tmp_path, code).execute(ASKS, heard)
    assert gone(heard.ids[0], 1) and not list(tmp_path.iterdir())


@pytest.mark.real
@pytest.mark.parametrize("seconds", [0.1, 99], ids=["it ends by itself", "it goes on"])
def test_nobody_waits_any_more(tmp_path, seconds):
    """As after kill -9: the supervisor removes the folder."""
    run = tmp_path / "run"
    run.mkdir()
    line = [sys.executable, "-c", f"import os, time\n{LEADS}time.sleep({seconds})"]
    text = supervised(str(run), str(tmp_path / "lock"), line, {}, 99, forget=True)
    subprocess.run(["/bin/sh", "-c", text], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.real
def test_the_real_runner_answers_as_a_session_here(tiny_bundle, tmp_path):
    bundle = Bundle(tiny_bundle("llama", "int4"))
    site = next(path for path in sys.path if path.endswith("site-packages"))
    runner = python_runner(sys.executable, site, tmp_path)
    (tmp_path / "runs").mkdir()
    digest = case_of(bundle, "onnx").artifact
    where = Job(LocalLink(), str(tmp_path / "runs"), str(bundle.path / "onnx"), str(tmp_path), runner, digest)
    sampling = Sampling(temperature=1.1, seed=3)
    plan = answering.plan_of(bundle, "onnx", [5, 6, 7], 12, sampling, 1)
    result = where.execute(plan, heard := Heard())
    with bundle.session("onnx", 1) as session:
        here = execute(plan, session, "")
    assert result.generated and here.generated and heard.ids == result.generated.ids == here.generated.ids
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize(
    "said", [b'{"tokens": 7}', b'{"tokens": [-1, "x", null, 1.5, true]}', b'{"token": [1]}', b"[]"]
)
def test_tokens_that_are_none(said):
    heard = Heard()
    watch = Watch(heard)
    watch.line(said)
    assert heard.ids == [] and watch.answer == {}


def test_a_runner_that_tells_too_much(tiny_bundle):
    heard = answering.Heard("ssh://test", ASKS, 300, lambda token: None)
    heard.tokens([1, 2, 3])
    for ids in ([300], [1, 2]):
        with pytest.raises(SetupError, match="tells tokens that no answer has"):
            heard.tokens(ids)
    assert heard.found.ids == [1, 2, 3]
