"""Runs under the supervisor, over a link to this machine: what a runner answers, and what ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from smolship.runtime.bundle import open_bundle
from smolship.runtime.case import case_of
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.parity import parity
from smolship.runtime.plan import Plan
from smolship.runtime.sensors.process import process_memory
from smolship.runtime.sensors.snapshot import snapshot
from smolship.tools.devices import job as jobs
from smolship.tools.devices import showing
from smolship.tools.devices.cores import Core, processor
from smolship.tools.devices.facts import read_device
from smolship.tools.devices.job import Job, supervised
from smolship.tools.devices.opening import Place
from smolship.tools.devices.runners import Runner, python_runner
from smolship.tools.devices.uri import parse
from smolship.tools.measure import recorded_of
from tests.tools.local_link import LocalLink

PLAN = Plan("bench", "onnx", "onnx", {"file": "model.onnx"}, 1)
SHELLS = [("/bin/sh",), ("bash", "--posix"), pytest.param(("busybox", "sh"), marks=pytest.mark.real)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def script(code):
    """A runner of a few lines of Python."""
    return Runner(  # -E: each line in one write, whatever is set here
        "fake", {}, [sys.executable, "-E", "-c", f"import sys, os, time, json, signal; args = sys.argv[1:]\n{code}"]
    )


@pytest.fixture
def swift(tmp_path):
    """A link whose seconds are short: the supervisor looks 50 times as often."""
    (tmp_path / "swift").mkdir()
    (tmp_path / "swift" / "sleep").write_text("#!/bin/sh\nexec /bin/sleep 0.02\n")
    (tmp_path / "swift" / "sleep").chmod(0o755)
    return LocalLink(("/usr/bin/env", f"PATH={tmp_path}/swift:{os.environ['PATH']}", "/bin/sh"))


def job(folder, runner, link=None, **options):
    return Job(link or LocalLink(), str(folder), str(folder), str(folder), runner, "0" * 64, **options)


@pytest.mark.real
def test_the_real_executor_passes_parity_and_is_timed(tiny_bundle, tmp_path, folder):
    bundle = open_bundle(tiny_bundle("llama", "int4"))
    case = case_of(bundle, "onnx")
    site = next(path for path in sys.path if path.endswith("site-packages"))
    runner = python_runner(sys.executable, site, tmp_path)
    where = Job(LocalLink(), str(folder), str(bundle.path / "onnx"), str(tmp_path), runner, case.artifact)
    heard = []
    report = parity(bundle, "onnx", threads=1, elsewhere=where.execute, progress=lambda *a: heard.append(a))
    here = parity(bundle, "onnx", threads=1)
    assert report.passed and heard
    assert [(c.what, c.passed) for c in report.checks] == [(c.what, c.passed) for c in here.checks]
    found, made = recorded_of(
        bundle,
        "onnx",
        lambda *a: None,
        threads=1,
        repeats=1,
        there=Place("fake", lambda name: where, facts=read_device(LocalLink())),
    )
    assert found.report.copy_gb_per_s is None and found.report.memory.peak_bytes
    assert min(s.median for s in found.report.decode_tokens_per_s.values()) > 0
    assert made.device.uri == "fake" and made.answer.check == "as planned"
    assert made.before.boot_id.value and made.before.boot_id == made.after.boot_id
    assert not list(folder.glob("lock"))


def test_an_error_of_the_runner_is_its_own(folder, swift):
    runner = script("print(json.dumps({'error': ['InputError', 'no such plan']})); sys.exit(2)")
    with pytest.raises(InputError, match=r"ssh://test: no such plan"):
        job(folder, runner, swift).execute(PLAN, lambda *a: None)


def test_an_unknown_kind_of_error_is_no_attribute_of_ours(folder, swift):
    runner = script("print(json.dumps({'error': ['Iterable', 'x']})); sys.exit(2)")
    with pytest.raises(SetupError, match="x"):
        job(folder, runner, swift).execute(PLAN, lambda *a: None)


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", ["SIGKILL", "memory"]),
        ("os.kill(os.getpid(), signal.SIGILL)", ["SIGILL", "instruction", "onnxruntime 1.32.0 on Cortex-A72 (with"]),
        ("os.kill(os.getpid(), signal.SIGSYS)", ["SIGSYS", "system call"]),
        ("print('no JSON'); sys.stderr.write('a reason\\n'); sys.exit(7)", ["exit status 7", "a reason", "no JSON"]),
        ("print(json.dumps({'result': None})); sys.exit(1)", ["exit status 1"]),
        ("", ["exit status 0"]),
    ],
    ids=["killed", "illegal", "filtered", "log", "after", "silent"],
)
def test_a_runner_that_ends_before_it_answers(folder, swift, code, parts):
    runner = replace(script(code), versions=["onnxruntime 1.32.0"])
    told = processor([Core(0, "Cortex-A72", ("asimd",), None, None)])
    with pytest.raises(SetupError) as caught:
        job(folder, runner, swift, processor=told).execute(PLAN, lambda *a: None)
    for part in [*parts, "ssh://test", "starting"]:
        assert part in str(caught.value)


@pytest.mark.real
def test_a_result_of_another_artifact(tiny_bundle, tmp_path, folder):
    bundle = open_bundle(tiny_bundle("llama", "int4"))
    entry = bundle.entry("onnx")
    site = next(path for path in sys.path if path.endswith("site-packages"))
    runner = python_runner(sys.executable, site, tmp_path)
    where = Job(LocalLink(), str(folder), str(bundle.path / "onnx"), str(tmp_path), runner, "0" * 64)
    with pytest.raises(SetupError, match="the artifact on the device is another"):
        where.execute(Plan("parity", "onnx", "onnx", entry.info, 1), lambda *a: None)


@pytest.mark.real
@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: Path(shell[0]).name)
def test_a_run_that_takes_too_long_ends_with_its_children(folder, shell):
    code = (
        "import subprocess; c = subprocess.Popen(['sleep', '99']); open('child', 'w').write(str(c.pid)); time.sleep(99)"
    )
    with pytest.raises(SetupError, match="its time was over"):
        job(folder, script(LEADS + code), LocalLink(shell), limit_s=3).execute(PLAN, lambda *a: None)
    (child,) = folder.glob("*/child")
    assert gone(int(child.read_text()))
    assert not (folder / "lock").exists()


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: Path(shell[0]).name)
def test_the_limit_that_was_asked_for_is_said(folder, swift, shell):
    told = []
    link = LocalLink((*swift.command[:-1], *shell))
    with pytest.raises(SetupError) as caught:
        where = job(folder, script(LEADS + "time.sleep(99)"), link, limit_s=4)
        where.execute(PLAN, lambda *said: told.append(said[0]))
    parts = caught.value.parts()
    assert "its time was over: 4 s" in parts["got"] and "--limit 1h" in parts["todo"] and caught.value.exit_code == 3
    assert told[0] == "starting; it has 4 s" and not (folder / "lock").exists()


@pytest.mark.real
def test_the_limit_is_of_seconds_on_a_slow_machine_too(tmp_path, folder):
    """Where each round of the supervisor takes 3 seconds."""
    (tmp_path / "sleep").write_text("#!/bin/sh\nexec /bin/sleep 3\n")
    (tmp_path / "sleep").chmod(0o755)
    link = LocalLink(("/usr/bin/env", f"PATH={tmp_path}:{os.environ['PATH']}", "/bin/sh"))
    start = time.monotonic()
    with pytest.raises(SetupError, match="its time was over: 6 s"):
        job(folder, script(LEADS + "time.sleep(99)"), link, limit_s=6).execute(PLAN, lambda *a: None)
    assert time.monotonic() - start < 13  # six rounds are 18


LEADS = "os.setsid() if os.environ.get('SMOLSHIP_SUPERVISED') else None\n"


def gone(pid, limit_s=3.0):
    """Whether a process ends in that time."""
    over = time.monotonic() + limit_s
    while time.monotonic() < over:
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.real
@pytest.mark.parametrize("deaf", [False, True], ids=["", "deaf to TERM"])
def test_the_runner_ends_when_the_link_is_cut(folder, deaf):
    """As by kill -9 of the command: the supervisor's input ends."""
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if deaf else ""
    runner = script(LEADS + ignore + "open('up', 'w').write('1'); time.sleep(99)")
    run = folder / "run"
    run.mkdir()
    line = runner.line(str(folder), "a", "b", "c")
    text = supervised(str(run), str(folder / "lock"), line, {}, 99)
    process = subprocess.Popen(["/bin/sh", "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    while not (run / "up").exists():
        time.sleep(0.05)
    pid = int((run / "pid").read_text())
    process.stdin.close()
    out = process.stdout.read()
    assert process.wait() == 0 and b"lost" in out and gone(pid)


@pytest.mark.real
def test_silence_ends_it(folder, monkeypatch):
    monkeypatch.setattr(jobs, "SILENT_S", 2)
    monkeypatch.setattr(jobs, "BEAT_S", 60.0)
    with pytest.raises(SetupError, match="no heartbeat"):
        job(folder, script(LEADS + "time.sleep(60)")).execute(PLAN, lambda *a: None)


def test_one_run_at_a_time_and_a_stale_lock_is_taken_over(folder, swift):
    lock = folder / "lock"
    lock.mkdir()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    began = Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19]
    (lock / "holder").write_text(f"{os.getpid()} {boot} somebody-1 {began}\n")
    quick = script("print(json.dumps({'error': ['InputError', 'ran']})); sys.exit(2)")
    with pytest.raises(SetupError, match="another run is going on") as caught:
        job(folder, quick, swift).execute(PLAN, lambda *a: None)
    assert "somebody-1" in str(caught.value) and f"kill {os.getpid()}" in str(caught.value)
    another = f"{os.getpid()} {boot} x {int(began) - 1}"  # whose number this process has now
    for holder in (f"999999999 {boot} x 1", f"{os.getpid()} another-boot x {began}", another, "", "nonsense"):
        (folder / "lock").mkdir(exist_ok=True)
        (lock / "holder").write_text(holder)
        with pytest.raises(InputError, match="ran"):
            job(folder, quick, swift).execute(PLAN, lambda *a: None)
        assert not lock.exists()


@pytest.mark.real
def test_a_device_is_not_cleaned_while_a_run_goes_on(tmp_path, monkeypatch):
    """By the same rule as a run's own: the process that holds the lock, not another that has its number now."""
    ours = tmp_path / "smolship" / "device"
    monkeypatch.setattr(showing, "link_to", lambda address: LocalLink())
    monkeypatch.setattr(showing, "look", lambda link, address: read_device(link, (f"{tmp_path}/smolship",)))
    lock = ours / "runs" / "lock"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    began = int(Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19])
    for start, code in ((began, 75), (began + 1, 0)):
        lock.mkdir(parents=True, exist_ok=True)
        (lock / "holder").write_text(f"{os.getpid()} {boot} somebody-1 {start}\n")
        if code:
            with pytest.raises(SetupError, match="a run is going on"):
                showing.cleaned(parse("ssh://test"))
            assert lock.exists()
        else:
            assert showing.cleaned(parse("ssh://test"))["folders"] == [str(ours)]
            assert not ours.exists() and not ours.parent.exists()
            assert "nothing was there" in showing.cleaned(parse("ssh://test"))["said"]


@pytest.mark.real
def test_what_an_earlier_run_has_left_is_named(folder):
    """Its supervisor was killed, as by a kernel that has no memory."""
    run = folder / "old"
    run.mkdir()
    line = script(LEADS + "time.sleep(30)").line(str(folder), "a", "b", "c")
    text = supervised(str(run), str(folder / "lock"), line, {}, 99)
    process = subprocess.Popen(["/bin/sh", "-c", text], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    while not (run / "alive").exists() or not (run / "alive").read_text():
        time.sleep(0.05)
    process.kill()
    process.wait()
    pid = int((run / "pid").read_text())
    try:
        with pytest.raises(SetupError, match=f"kill -9 {pid}"):
            job(folder, script("")).execute(PLAN, lambda *a: None)
        assert not (folder / "lock").exists()
    finally:
        os.kill(pid, signal.SIGKILL)
    quick = script("print(json.dumps({'error': ['InputError', 'ran']})); sys.exit(2)")
    with pytest.raises(InputError, match="ran"):
        job(folder, quick).execute(PLAN, lambda *a: None)
    assert not list(folder.glob("*/alive"))


def test_a_number_that_another_process_has_now_is_no_leftover(folder, swift):
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    began = Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19]
    quick = script("print(json.dumps({'error': ['InputError', 'ran']})); sys.exit(2)")
    (folder / "old").mkdir()
    for alive in (f"{os.getpid()} {boot} {int(began) + 1}", f"{os.getpid()} another {began}", "", "x y z"):
        (folder / "old" / "alive").write_text(alive)
        with pytest.raises(InputError, match="ran"):
            job(folder, quick, swift).execute(PLAN, lambda *a: None)
        assert not (folder / "old" / "alive").exists()


@pytest.mark.real
def test_sensors_are_read_each_second(folder):
    code = "time.sleep(2.5); print(json.dumps({'error': ['InputError', 'ran']})); sys.exit(2)"
    where = job(folder, script(code))
    with pytest.raises(InputError, match="ran"):
        where.execute(PLAN, lambda *a: None)
    first, second, *_ = where.samples(PLAN)
    assert first.whole and first.seconds < second.seconds
    (pid,) = folder.glob("*/pid")
    taken = process_memory(first, int(pid.read_text()))
    assert taken.anonymous.value > 1 << 20
    assert snapshot(where.sensors()).boot_id.value == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_names_that_a_shell_would_read(folder, swift):
    """Arguments and variables arrive as they are."""
    odd = "a b;$(touch x)`id`'\"\\\n*"
    code = "import sys, os, json; print(json.dumps({'error': ['InputError', repr(sys.argv[1] + os.environ['ODD'])]}))"
    runner = Runner("fake", {}, [sys.executable, "-E", "-c", code, odd], {"ODD": odd})
    with pytest.raises(InputError) as caught:
        job(folder, runner, swift).execute(PLAN, lambda *a: None)
    assert repr(odd + odd) in str(caught.value)
    assert not list(folder.rglob("x"))


@pytest.mark.real
def test_an_interrupt_leaves_nothing_running(folder):
    """Ctrl-C while it runs: the supervisor sees the end of its input, and the lock is gone before the command ends."""
    start = time.monotonic()
    runner = script(LEADS + "print(json.dumps({'progress': ['going', 1, 2]}), flush=True); time.sleep(99)")
    timer = None

    def going(*a):
        nonlocal timer
        if timer is None:
            timer = threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT))
            timer.start()

    with pytest.raises(KeyboardInterrupt):
        job(folder, runner).execute(PLAN, going)
    assert time.monotonic() - start < 10 + 1.5 and not (folder / "lock").exists()
    (pid,) = folder.glob("*/pid")
    assert gone(int(pid.read_text()), 0.5)


def test_what_a_person_set_for_programs_of_their_own_has_no_effect(folder, swift):
    """LD_LIBRARY_PATH in a start file, say."""
    ours = {"PYTHONPATH": "/ours"}
    names = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONHOME", "PYTHONPATH", "TMPDIR")
    code = f"print(json.dumps({{'error': ['InputError', repr([os.environ.get(n) for n in {names}])]}}))"
    theirs = [f"{name}=/theirs" for name in names if name != "LD_PRELOAD"]
    link = LocalLink(("/usr/bin/env", *theirs, *swift.command[1:]))
    with pytest.raises(InputError) as caught:
        job(folder, replace(script(code), variables=ours), link).execute(PLAN, lambda *a: None)
    assert f"[None, None, None, '/ours', '{folder}/{PLAN.digest[:16]}']" in str(caught.value)


def test_options_and_functions_of_a_start_file_are_none_of_ours(folder):
    """As bash hands them on to every shell."""
    given = ("SHELLOPTS=errexit:noclobber:noglob:nounset", "BASH_FUNC_printf%%=() { echo theirs; }")
    link = LocalLink(("/usr/bin/env", *given, "bash", "--posix"))
    done = link.run(
        f"false; : >{folder}/a; : >{folder}/a; cd {folder}; echo $nobody *; printf '%s\\n' ours", limit_s=10
    )
    assert (done.status, done.out) == (0, b"a\nours\n")


def test_the_archive_is_all_that_the_executor_needs(tmp_path):
    """With numpy alone beside it; the same files make the same archive."""
    runner = python_runner(sys.executable, "/nowhere", tmp_path)
    first = runner.files["smolship.zip"].read_bytes()
    code = "import smolship.runtime.execute as e, importlib.metadata as m; print(e.__file__, m.version('smolship'))"
    site = tmp_path / "site"
    site.mkdir()
    for package in Path(np.__file__).parent.parent.glob("numpy*"):
        (site / package.name).symlink_to(package)
    path = f"{runner.files['smolship.zip']}:{site}"
    done = subprocess.run(
        [sys.executable, "-P", "-S", "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    assert done.stdout.startswith(str(runner.files["smolship.zip"])), done.stderr
    assert python_runner(sys.executable, "/nowhere", tmp_path).files["smolship.zip"].read_bytes() == first


@pytest.mark.real
@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: Path(shell[0]).name)
def test_a_supervisor_that_is_hung_up_takes_the_runner_with_it(folder, shell):
    """Nobody reads what it says any more."""
    runner = script(LEADS + "open('up', 'w').write('1'); time.sleep(99)")
    run = folder / "run"
    run.mkdir()
    text = supervised(str(run), str(folder / "lock"), runner.line(str(folder), "a", "b", "c"), {}, 99)
    process = subprocess.Popen([*shell, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    while not (run / "up").exists() or b"started" not in process.stdout.readline():
        time.sleep(0.05)
    process.stdout.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 129
    assert gone(int((run / "pid").read_text())) and not (folder / "lock").exists()


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"progress": ["a", Infinity, 1]}',
        b'{"progress": "abc", "result": 1}',
        b'{"progress": ["a", 1' + b"0" * 400 + b", 1]}",
        b'{"progress": ["a", 1, -1]}',
        b'{"error": "x"}',
        b'{"error": 7}',
        b"7",
        b"\xff\xfe",
        b"smolship-supervisor",
        b"smolship-supervisor \xff started",
    ],
    ids=range(11),
)
def test_what_a_device_says_is_not_trusted(line):
    told = []
    watch = jobs.Watch(lambda *a: told.append(a))
    watch.line(line)
    assert watch.answer == {} and told == []


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("", "not valid JSON"),
        ('{"schema": 1', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"schema": 1, "engines": "onnx"}', "unknown keys"),
        ('{"schema": 0}', "of another version"),
    ],
    ids=range(5),
)
def test_a_result_that_is_none_is_the_device_s_fault(folder, swift, made, words):
    code = f"open(args[1], 'w').write({made!r}); sys.stderr.write('why'); print(json.dumps({{'result': None}}))"
    with pytest.raises(SetupError, match="what the device answered is not taken") as caught:
        job(folder, script(code), swift).execute(PLAN, lambda *a: None)
    assert words in str(caught.value) and "why" in str(caught.value) and "ssh://test" in str(caught.value)


class Restarted(LocalLink):
    """The device has another boot_id once the result is there."""

    def pull(self, path, into):
        into.write_text("")
        self.boot = "another"

    def run(self, script, **given):
        done = super().run(script, **given)
        return replace(done, out=b"another\n") if hasattr(self, "boot") and "boot_id" in script else done


def test_a_device_that_has_restarted_before_its_result_was_taken(folder, swift):
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    runner = script("print(json.dumps({'result': None}))")
    with pytest.raises(SetupError, match="has restarted after the run: what it answered is not taken") as caught:
        job(folder, runner, Restarted(swift.command), boot=boot).execute(PLAN, lambda *a: None)
    assert caught.value.exit_code == 3 and "another" in str(caught.value) and boot in str(caught.value)
    with pytest.raises(SetupError, match="is not taken: result"):  # nothing is compared where nothing is known
        job(folder, runner, Restarted(swift.command)).execute(PLAN, lambda *a: None)


def test_a_device_that_has_restarted(folder, swift):
    runner = script("time.sleep(0.3); print(json.dumps({'error': ['InputError', 'ran']})); sys.exit(2)")
    with pytest.raises(SetupError, match="the device has restarted"):
        job(folder, runner, swift, boot="another").execute(PLAN, lambda *a: None)
