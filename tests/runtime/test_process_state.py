"""Sessions in one process leave one another, and the process, as they were."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
import torch

from smolship.export.checkpoints import open_checkpoint
from smolship.export.targets import load_target
from smolship.export.weights import SCHEMES, write_weights
from smolship.runtime.engines import load_engine
from smolship.runtime.errors import InputError
from smolship.runtime.mil import blas, matrix
from tests.bundles import job_of

CONTEXT = 48
IDS = np.random.default_rng(8).integers(0, 300, 24)
ENGINES = ("coreml", "executorch", "gguf", "onnx")


@pytest.fixture(scope="module")
def opened(tiny, tmp_path_factory):
    """opened(engine, threads) -> an open session of one tiny model."""
    made = tmp_path_factory.mktemp("state")
    checkpoint = open_checkpoint(str(tiny("llama")))
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int8"], made)
    entries = {}
    for name in ENGINES:
        (made / name).mkdir()
        entries[name] = load_target(name).lower(job_of(checkpoint, weights, CONTEXT), made / name)
    return lambda name, threads: load_engine(name).open_session(made / name, dict(entries[name]), threads)


@pytest.fixture
def three_threads():
    """numpy's and torch's own number, other than any that a session asks for."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    for _, put in blas._libraries():
        put(3)
    yield lambda: (torch.get_num_threads(), blas.thread_counts())
    torch.set_num_threads(before)
    for _, put in blas._libraries():
        put(before)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_session_leaves_numpy_and_torch_as_they_were(opened, three_threads, engine):
    before = three_threads()
    assert before[0] == 3 and before[1] and set(before[1]) <= {1, 2, 3}
    with opened(engine, 2) as session:
        session.forward(IDS[:5])
        assert three_threads()[1] == before[1], "between calls numpy is the process's"
        with opened(engine, 2) as other:
            other.forward(IDS[:3])
        session.forward(IDS[5:7])
    assert three_threads() == before


@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_session_changes_nothing_in_the_first(opened, engine):
    with opened(engine, 2) as session:
        alone = session.forward(IDS[:12])
        session.rewind(11)
        again = session.forward(IDS[11:12])
        session.rewind(0)
        with opened(engine, 2) as other:
            other.forward(IDS[12:])
            np.testing.assert_array_equal(session.forward(IDS[:12]), alone)
        session.rewind(11)
        np.testing.assert_array_equal(session.forward(IDS[11:12]), again)


@pytest.mark.parametrize("engine", ["coreml", "gguf", "onnx"])
def test_a_session_with_other_threads_is_welcome(opened, engine):
    with opened(engine, 2) as session, opened(engine, 1) as other:
        np.testing.assert_allclose(other.forward(IDS[:9]), session.forward(IDS[:9]), rtol=1e-2, atol=1e-2)
        assert engine != "coreml" or (session.helper and other.helper is None)


def test_executorch_has_one_pool(opened):
    from executorch.extension.pybindings import _C

    session = opened("executorch", 2)
    assert _C._threadpool_get_thread_count() == 2
    with pytest.raises(InputError, match=r"one pool of threads(?s:.*)1 threads(?s:.*)2, as the open session"):
        opened("executorch", 1)
    assert _C._threadpool_get_thread_count() == 2
    session.forward(IDS[:3])
    session.close()
    session.close()
    with opened("executorch", 1) as session:
        assert _C._threadpool_get_thread_count() == 1
        session.forward(IDS[:3])


def test_a_session_that_nobody_closed_gives_the_pool_back(opened, three_threads):
    before = three_threads()
    session = opened("executorch", 2)
    assert torch.get_num_threads() == 1
    del session
    gc.collect()
    assert three_threads() == before
    opened("executorch", 1).close()


def test_a_program_that_is_refused_gives_the_pool_back(opened, three_threads, tmp_path):
    from smolship.export.targets.executorch.program import Program
    from smolship.runtime.engines import executorch

    program = Program()
    constant = program.floats(np.ones(3)).tensor
    assert constant is not None
    program.outputs = [constant, program.tensor((1,))]
    program.write(tmp_path / "model.pte", {"get_vocab_size": [7]})
    before = three_threads()
    with pytest.raises(InputError, match="not a program"):
        executorch.open_session(tmp_path, {"file": "model.pte"}, threads=2)
    assert three_threads() == before and not executorch.POOL.sessions


def test_blas_has_one_thread_within(three_threads):
    _, before = three_threads()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with blas.one_thread():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with blas.one_thread():
        assert blas.thread_counts() == [1] * len(before)
        thread.start()
        assert inside.wait(10)
    assert blas.thread_counts() == [1] * len(before), "the other one is still inside"
    leave.set()
    thread.join()
    assert blas.thread_counts() == before


def test_a_helper_is_its_threads_own():
    seen = []
    with matrix.shared_with("helper"):
        thread = threading.Thread(target=lambda: seen.append(matrix._helper.get()))
        thread.start()
        thread.join()
        assert matrix._helper.get() == "helper"
    assert seen == [None] and matrix._helper.get() is None


# An interrupt arrives between the native call and the count of what it took.


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("logits", ["last", "all"])
def test_after_an_interrupt_the_session_goes_on(opened, engine, logits, monkeypatch):
    with opened(engine, 1) as session:
        session.forward(IDS[:6])
        want = session.forward(IDS[6:14], "all")
        session.rewind(6)
        run, calls = session._run, []

        def interrupted(ids, position):
            calls.append(run(ids, position))
            if len(calls) == (1 if logits == "last" else 3):
                raise KeyboardInterrupt
            return calls[-1]

        monkeypatch.setattr(session, "_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.forward(IDS[10:16], logits)
        assert session.position == 6 + (logits == "all") * 2, "what was counted stays"
        monkeypatch.undo()
        session.position = 6
        np.testing.assert_array_equal(session.forward(IDS[6:14], "all"), want)


def test_llama_cpp_is_told_where_it_goes_on(opened):
    """Its cache is ahead of the position, as after an interrupt that nothing caught."""
    with opened("gguf", 1) as session:
        session.forward(IDS[:6])
        want = session.forward(IDS[6:9], "all")
        session.position = 6
        np.testing.assert_array_equal(session.forward(IDS[6:9], "all"), want)
