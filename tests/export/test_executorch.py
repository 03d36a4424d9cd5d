"""The ExecuTorch target: what the engine computes against the reference, on tiny random models."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from executorch.extension.pybindings import portable_lib

from smolship.export.checkpoints import Checkpoint, open_checkpoint
from smolship.export.numerics import Numerics
from smolship.export.reference import Reference, run
from smolship.export.targets import Job, executorch
from smolship.export.targets.executorch.arithmetic import Tokens
from smolship.export.targets.executorch.file import Blob
from smolship.export.targets.executorch.graph import Matrix, Subgraph, Value
from smolship.export.targets.executorch.light import ScalarType
from smolship.export.targets.executorch.program import Program, place
from smolship.export.weights import SCHEMES, Scheme, Weights, write_weights
from smolship.runtime.engines.executorch import open_session
from tests.conftest import KINDS, make_tiny
from tests.edit import double_scales_pte

CONTEXT = 300  # longer than two chunks of 128
IDS = np.random.default_rng(3).integers(0, 300, 290)
INFO = {"file": "model.pte"}
ROUGH = 0.05  # of the largest logit (about 4): more than a few roundings that fell the other way, less than an error
Built = tuple[Checkpoint, Weights, Path]


@pytest.fixture(scope="module")
def built(tiny, tmp_path_factory):
    """built(kind, scheme) -> checkpoint, weights and the folder of the artifact, made once."""
    made: dict[tuple[str, Scheme], Built] = {}

    def get(kind: str, scheme: Scheme) -> Built:
        if (kind, scheme) not in made:
            folder = tmp_path_factory.mktemp("executorch")
            made[kind, scheme] = lowered(open_checkpoint(str(tiny(kind))), scheme, folder)
        return made[kind, scheme]

    return get


def lowered(checkpoint: Checkpoint, scheme: Scheme, folder: Path, context: int = CONTEXT) -> Built:
    weights = write_weights(checkpoint, checkpoint.config, scheme, folder)
    info = executorch.lower(Job(checkpoint.config, weights, context), folder)
    assert info["file"] == "model.pte"
    return checkpoint, weights, folder


def simulated(built: Built, numerics=None) -> np.ndarray:
    """What the reference computes for IDS, [S, V]."""
    checkpoint, weights, _ = built
    numerics = executorch.numerics(weights) if numerics is None else numerics
    return run(checkpoint.config, Reference(checkpoint.config, weights, CONTEXT, numerics), IDS)


def close(got: np.ndarray, want: np.ndarray) -> None:
    torch.testing.assert_close(torch.from_numpy(got), torch.from_numpy(want), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_float_logits_equal_the_reference(built, kind):
    made = built(kind, SCHEMES["none"])
    want = simulated(made)
    with open_session(made[2], INFO, threads=2) as session:
        assert (session.vocab, session.capacity, session.chunk) == (300, CONTEXT, 128)
        close(session.forward(IDS), want[-1:])
        session.rewind(0)
        close(session.forward(IDS[:40], "all"), want[:40])
        for start, stop in [(40, 73), (73, 74), (74, 75), (75, 290)]:
            close(session.forward(IDS[start:stop]), want[stop - 1 : stop])
        session.rewind(270)  # one token at a time after more than NEAR: not the kernel that the first 40 took
        close(session.forward(IDS[270:], "all"), want[270:])
        session.rewind(20)
        close(session.forward(IDS[20:50]), want[49:50])


SCHEMES_TO_TRY = {
    "int4": SCHEMES["int4"],
    "int8": SCHEMES["int8"],
    "int4 throughout, groups of 64": Scheme(4, 4, 4, 64),
    "int8 tables": Scheme(16, 8, 8),
    "float tables": Scheme(4, 16, 16),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("scheme", SCHEMES_TO_TRY.values(), ids=list(SCHEMES_TO_TRY))
@pytest.mark.parametrize("kind", ["llama_bias", "smollm3"])
def test_quantized_logits_equal_the_simulation(built, kind, scheme):
    """Int8 activations are chaotic: where a number lies next to a rounding boundary, engine and simulation may fall on
    two sides of it, and the logits of that token and of all that see it differ by hundredths. So most tokens that
    stand alone must agree exactly, and a text roughly."""
    made = checkpoint, weights, folder = built(kind, scheme)
    reference = Reference(checkpoint.config, weights, CONTEXT, executorch.numerics(weights))
    text = simulated(made)
    with open_session(folder, INFO, threads=2) as session:
        alone = []
        for token in range(40):
            session.rewind(0)
            alone.append(np.abs(session.forward([token]) - run(checkpoint.config, reference, [token])).max())
        assert np.mean(np.array(alone) < 1e-4) > 0.8
        for length in (17, 64, 290):
            session.rewind(0)
            assert np.abs(session.forward(IDS[:length]) - text[length - 1]).max() < ROUGH * np.abs(text).max()


def test_the_simulation_is_not_the_float_model(built):
    """The test above can tell the two apart."""
    checkpoint, weights, _ = built("llama_bias", SCHEMES["int4"])
    alone = []
    for token in range(40):
        pair = [Reference(checkpoint.config, weights, 1, n) for n in (executorch.numerics(weights), Numerics())]
        simulation, floats = (run(checkpoint.config, reference, [token]) for reference in pair)
        alone.append(np.abs(simulation - floats).max())
    assert np.min(alone) > 1e-3


def test_a_doubled_scale_is_seen(built, tmp_path):
    made = built("llama_bias", Scheme(4))
    for name in ("layers.1.v", "layers.0.down", "head"):
        shutil.copy(made[2] / "model.pte", tmp_path / "model.pte")
        double_scales_pte(tmp_path / "model.pte", made[1], name)
        with open_session(tmp_path, INFO, threads=2) as session:
            assert np.abs(session.forward(IDS) - simulated(made)[-1]).max() > ROUGH * 4, name


def test_activations_are_rounded_as_the_engine_rounds_them(tmp_path):
    """A linear with the identity gives back its input as XNNPACK saw it."""
    rows, width = 500, 64
    program, graph = Program(), Subgraph()
    x = Value((1, rows, width), program.input((1, rows, width), ScalarType.FLOAT, dynamic=True))
    codes, scales = np.eye(width, dtype=np.int8), np.ones(width, np.float32)
    program.named = {"codes": Blob(codes.nbytes, lambda: [codes]), "scales": Blob(scales.nbytes, lambda: [scales])}
    seen = graph.linear(x, Matrix((width, width), 8, width, "codes", "scales"))
    program.run_subgraph(graph, [seen])
    assert seen.tensor is not None
    program.outputs = [seen.tensor]
    program.write(tmp_path / "linear.pte", {})
    module = portable_lib._load_for_executorch(str(tmp_path / "linear.pte"))
    for size, shift in [(1.0, 0.0), (1e4, 0.0), (1.0, 3.0), (1.0, -3.0), (1e-6, 0.0)]:
        x = (torch.randn(1, rows, width, generator=torch.Generator().manual_seed(1)) + shift) * size
        x[0, 0] = 0
        (got,) = module.run_method("forward", (x,))
        want = Tokens().round(x)
        step = (x.amax(-1) - x.amin(-1)).amax() / 255
        assert ((got - want).abs() > step / 2).sum() <= 3  # numbers that lie on a boundary, to the last bit
        assert ((got - want).abs() > 1e-6 * want.abs()).sum() <= 3


def test_a_dimension_that_no_group_divides_is_held_at_8_bits(tmp_path):
    folder = make_tiny(tmp_path / "odd", "llama", intermediate_size=200)
    made = lowered(open_checkpoint(str(folder)), SCHEMES["int4"], tmp_path)
    assert made[1].entries["layers.0.down"].bits == 8 and made[1].entries["layers.0.up"].bits == 4
    with open_session(tmp_path, INFO, threads=1) as session:
        assert np.abs(session.forward(IDS) - simulated(made)[-1]).max() < ROUGH * 4


@pytest.mark.parametrize("context", [1, 2, 7])
def test_tiny_contexts(tiny, tmp_path, context):
    made = lowered(open_checkpoint(str(tiny("smollm3"))), SCHEMES["none"], tmp_path, context)
    with open_session(tmp_path, INFO, threads=1) as session:
        close(session.forward(IDS[:context]), simulated(made)[context - 1 : context])


def test_no_tensor_lies_on_another_that_is_still_wanted():
    program, random = Program(), np.random.default_rng(0)
    tensors = [program.planned[program.tensor((int(n),))] for n in random.integers(1, 5000, 200)]
    for tensor in tensors:
        tensor.first = int(random.integers(0, 100))
        tensor.last = tensor.first + int(random.integers(0, 20))
    arena = place(tensors)
    assert arena < sum(tensor.size for tensor in tensors) / 3
    for i, a in enumerate(tensors):
        assert a.offset % 64 == 0 and a.offset + a.size <= arena
        for b in tensors[:i]:
            apart = a.offset + a.size <= b.offset or b.offset + b.size <= a.offset
            assert apart or a.last < b.first or b.last < a.first


def test_a_tied_table_lies_in_the_file_once(built):
    _, weights, folder = built("llama", SCHEMES["int8"])
    assert (folder / "model.pte").read_bytes().count(weights.tensor("embed").codes.tobytes()) == 1


@pytest.mark.real
def test_the_compiler_is_not_imported_and_can_be():
    """It would take as long as all else of the step; and whoever wants it has it, with the same schemas."""
    code = (
        "import sys; from smolship.export.targets.executorch import lowering; from torch.export import export; "
        "print([n for n in ('executorch.exir.program', 'torch._inductor') if n in sys.modules]); "
        "from executorch.exir import schema, to_edge; print(schema is lowering.et, callable(to_edge))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True True"]
