"""The Core ML target: what the package holds, by coremltools' own code, and what it says, on tiny random models."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from smolship.export import export
from smolship.export.checkpoints import Checkpoint, open_checkpoint
from smolship.export.numerics import Numerics
from smolship.export.reference import Reference, run
from smolship.export.targets import Job
from smolship.export.targets import coreml as target
from smolship.export.targets.coreml import data as coreml_data
from smolship.export.targets.coreml import emit as coreml_emit
from smolship.export.targets.coreml.arithmetic import Half, HalfConstants
from smolship.export.targets.coreml.light import ct, mb
from smolship.export.weights import SCHEMES, Scheme, Weights, write_weights
from smolship.runtime.engines.coreml import open_session
from smolship.runtime.errors import InputError
from smolship.runtime.mil import compiling, matrix
from smolship.runtime.mil.program import Program
from smolship.tools.cli import run as command
from tests.bundles import relower
from tests.conftest import KINDS, make_tiny
from tests.edit import double_scales_coreml
from tests.layers import RandomSource, with_rotary

CONTEXT = 96
IDS = np.random.default_rng(3).integers(0, 300, 85)
INFO = {"file": "model.mlpackage", "context": CONTEXT, "chunk": 64}
# Of the largest logit. In "float32" what is left are the constants that fp16 rounds: rotary tables and int8 weights.
CLOSE = {"float32": 6e-4, "float16": 3e-3}
Built = tuple[Checkpoint, Weights, Path]


@pytest.fixture(scope="module")
def built(tiny, tmp_path_factory):
    """built(kind, scheme) -> checkpoint, weights and the folder of the package, made once."""
    made: dict[tuple[str, Scheme], Built] = {}

    def get(kind: str, scheme: Scheme) -> Built:
        if (kind, scheme) not in made:
            made[kind, scheme] = lowered(tiny(kind), scheme, tmp_path_factory.mktemp("coreml"))
        return made[kind, scheme]

    return get


def lowered(model: Path, scheme: Scheme, folder: Path, context: int = CONTEXT) -> Built:
    checkpoint = open_checkpoint(str(model))
    weights = write_weights(checkpoint, checkpoint.config, scheme, folder)
    info = target.lower(Job(checkpoint.config, weights, context), folder)
    several = {"layers": [[1]], "convolutions": [[0, 2]]} if checkpoint.config.convolutions else {}
    several |= {"layers": [[0], [1], [2, 3]]} if checkpoint.config.architecture == "openelm" else {}
    assert info == INFO | {"context": context, "chunk": min(64, context)} | several
    return checkpoint, weights, folder


def simulated(built: Built, numerics: Numerics) -> np.ndarray:
    """What the reference computes for IDS, [S, V]."""
    checkpoint, weights, _ = built
    return run(checkpoint.config, Reference(checkpoint.config, weights, CONTEXT, numerics), IDS)


def say_the_same(built: Built, arithmetic: str, info: dict = INFO) -> None:
    """Chunks, single tokens and a rewound cache against the reference in the same arithmetic."""
    want = simulated(built, {"float16": Half, "float32": Numerics}[arithmetic]())
    atol = CLOSE[arithmetic] * np.abs(want).max()
    with open_session(built[2], info | {"arithmetic": arithmetic}, threads=2) as session:
        assert (session.vocab, session.capacity) == (300, info["context"])
        np.testing.assert_allclose(session.forward(IDS)[0], want[-1], atol=atol)
        session.rewind(0)
        np.testing.assert_allclose(session.forward(IDS[:5], "all"), want[:5], atol=atol)
        np.testing.assert_allclose(session.forward(IDS[5:]), want[-1:], atol=atol)
        session.rewind(70)
        np.testing.assert_allclose(session.forward(IDS[70:73]), want[72:73], atol=atol)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("arithmetic", CLOSE)
@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_the_reference(built, kind, arithmetic):
    say_the_same(built(kind, SCHEMES["none"]), arithmetic)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("scheme", [SCHEMES["int4"], SCHEMES["int8"], Scheme(4, 4, 4, 64)])
@pytest.mark.parametrize("kind", ["llama_bias", "smollm3"])
def test_quantized_logits_equal_the_simulation(built, kind, scheme):
    say_the_same(built(kind, scheme), "float16")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("arithmetic", ["float16", "float32"])
def test_weights_kept_as_float16_say_the_same(built, monkeypatch, arithmetic, scheme):
    """What large models do. BLAS may order the sums of a few rows otherwise: 1e-6 of the largest logit, unless results
    are rounded to fp16, where another order is another rounding."""
    folder = built("llama", SCHEMES[scheme])[2]
    ids = IDS[None, :64].astype(np.int32)

    def logits() -> np.ndarray:
        function = Program(folder / INFO["file"], arithmetic).function("prefill")
        return function({"input_ids": ids, "position": np.zeros(1, np.int32)}, function.new_state())["logits"]

    wide = logits()
    kept = []
    add = compiling.Unpacked.add

    def noted(self, key, made, half):
        add(self, key, made, half)
        kept.extend((key[0], one.dtype.name) for one in made)

    monkeypatch.setattr(compiling.Unpacked, "add", noted)
    monkeypatch.setattr(compiling, "WIDE", 0)
    monkeypatch.setattr(matrix, "PIECE", 1000)
    narrow = logits()
    # Codes times scales are rounded to fp16 in "float16" alone.
    packed = {("constexpr_blockwise_shift_scale", arithmetic)} if scheme != "none" else set()
    assert {one for one in kept if one[1].startswith("float")} == packed | {("const", "float16")}
    atol = {"float32": 1e-6, "float16": CLOSE["float16"]}[arithmetic] * np.abs(wide).max()
    np.testing.assert_allclose(narrow, wide, rtol=0, atol=atol)


def test_a_head_size_of_its_own(tmp_path):
    model = make_tiny(tmp_path / "model", "llama", head_dim=48)
    say_the_same(lowered(model, SCHEMES["int4"], tmp_path), "float16")


def test_a_context_shorter_than_a_chunk(tiny, tmp_path):
    made = lowered(tiny("llama"), SCHEMES["int4"], tmp_path, context=40)
    want = simulated(made, Half())
    with open_session(made[2], INFO | {"context": 40, "chunk": 40}, threads=1) as session:
        assert np.abs(session.forward(IDS[:40]) - want[39]).max() < CLOSE["float16"] * np.abs(want).max()


def stored(folder: Path):
    """The package's functions, as coremltools reads them: name -> {name of an operator: the operator}."""
    package = folder / "model.mlpackage"
    model = ct.models.MLModel(str(package), skip_model_load=True)
    from coremltools.converters.mil.frontend.milproto.load import load

    program = load(model.get_spec(), ct.target.iOS18.value, model.weights_dir)
    return {name: {op.name: op for op in function.operations} for name, function in program.functions.items()}


@pytest.mark.parametrize("scheme", [SCHEMES["int4"], SCHEMES["int8"], Scheme(4, 4, 4, 64), Scheme(4, 16, 16)])
def test_the_package_holds_exactly_our_weights(built, scheme):
    """Codes, scales and floats, in both functions, and the matrix that coremltools' own code makes of them."""
    _, weights, folder = built("llama_bias", scheme)
    functions = stored(folder)
    assert set(functions) == {"prefill", "decode"}
    for operators in functions.values():
        for name, entry in weights.entries.items():
            operator = operators[coreml_data.identifier(name)]
            if entry.bits == 16:
                held = operator.outputs[0].val
                assert held.dtype == np.float16
                np.testing.assert_array_equal(held, weights.values(name))
                continue
            ours = weights.tensor(name)
            assert operator.op_type == "constexpr_blockwise_shift_scale" and operator.offset is None
            assert operator.data.dtype == (
                ct.converters.mil.mil.types.int4 if entry.bits == 4 else ct.converters.mil.mil.types.int8
            )
            np.testing.assert_array_equal(operator.data.val, ours.codes)
            np.testing.assert_array_equal(operator.scale.val, ours.scales)
            np.testing.assert_array_equal(operator.materialized_val_inference(), ours.dequantize().astype(np.float16))


def theory(weights: Weights) -> int:
    """Bytes of codes, scales and floats."""
    count = {name: math.prod(entry.shape) for name, entry in weights.entries.items()}
    codes = sum(count[name] * entry.bits // 8 for name, entry in weights.entries.items())
    return codes + sum(2 * count[name] // entry.group for name, entry in weights.entries.items() if entry.group)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))
@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_is_stored_once(tmp_path, tied, scheme):
    """Two functions, and a table that is also the head, add nothing."""
    model = make_tiny(tmp_path / "model", "llama", hidden_size=512, vocab_size=4000, tie_word_embeddings=tied)
    _, weights, folder = lowered(model, scheme, tmp_path)
    size = (folder / "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    assert theory(weights) < size < 1.02 * theory(weights)


def naive_rms_norm(self, x, name, eps, factor=1.0):
    """As everybody writes it: x² is infinite above 256."""
    mean = mb.reduce_mean(x=mb.mul(x=x, y=x), axes=[-1], keep_dims=True)
    scale = mb.rsqrt(x=mb.add(x=mean, y=np.float16(eps)))
    return mb.mul(x=mb.mul(x=x, y=scale), y=self.weight(name))


@pytest.mark.parametrize("naive", [False, True])
def test_large_activations_do_not_overflow(tmp_path, monkeypatch, naive):
    """An MLP that writes numbers of tens of thousands into the residual stream, as those of real models do."""
    if naive:
        monkeypatch.setattr(coreml_emit.Emitter, "rms_norm", naive_rms_norm)
    checkpoint = open_checkpoint(str(make_tiny(tmp_path / "model", "llama")))
    source = Louder(checkpoint, "layers.0.down", 2000.0)
    weights = write_weights(source, checkpoint.config, SCHEMES["int8"], tmp_path)
    target.lower(Job(checkpoint.config, weights, CONTEXT), tmp_path)
    reference = Reference(checkpoint.config, weights, CONTEXT)
    want = run(checkpoint.config, reference, IDS)[-1]
    with open_session(tmp_path, INFO | {"arithmetic": "float16"}, threads=1) as session:
        close = np.abs(session.forward(IDS)[0] - want).max() < 0.02 * np.abs(want).max()
    assert close != naive
    assert reference.cache[1][1].isfinite().all()


class Louder:
    """A source of which one matrix is multiplied by a number."""

    def __init__(self, source, name, factor):
        self.source, self.name, self.factor = source, name, factor

    def read(self, name, start=0, stop=None):
        return self.source.read(name, start, stop) * (self.factor if name == self.name else 1.0)


@pytest.mark.parametrize("name", ["layers.1.v", "layers.0.down", "head"])
def test_a_doubled_scale_is_seen(built, tmp_path, name):
    made = built("llama_bias", SCHEMES["int4"])
    shutil.copytree(made[2] / "model.mlpackage", tmp_path / "model.mlpackage")
    double_scales_coreml(tmp_path / "model.mlpackage", made[1], name)
    label = coreml_data.identifier(name)
    for function in stored(tmp_path).values():
        np.testing.assert_array_equal(function[label].scale.val, made[1].scales(name) * 2)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        say_the_same((*made[:2], tmp_path), "float16")


def test_what_coremltools_does_not_read_is_not_written_as_zeros(tiny, tmp_path, monkeypatch):
    monkeypatch.delattr(coreml_data.Streamed, "flatten")
    with pytest.raises(AssertionError, match="without reading them"):
        lowered(tiny("llama"), SCHEMES["int4"], tmp_path)


def test_progress_counts_every_tensor_once(tiny, tmp_path):
    checkpoint = open_checkpoint(str(tiny("llama")))
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path)
    calls: list[tuple[int, int]] = []
    job = Job(checkpoint.config, weights, CONTEXT, progress=lambda what, done, total: calls.append((done, total)))
    target.lower(job, tmp_path)
    assert calls == [(i + 1, len(calls)) for i in range(len(calls))] and calls


def test_a_hidden_size_that_a_norm_cannot_take_is_a_problem(tiny):
    config = open_checkpoint(str(tiny("llama"))).config
    assert target.problems(config) == []
    assert "at most 16,384" in target.problems(replace(config, hidden=20_000))[0]


class FakeModel:
    """coremltools' MLModel as a Mac has it, with the interpreter in Core ML's place."""

    def __init__(self, path, compute_units, function_name):
        assert compute_units == ct.ComputeUnit.CPU_ONLY
        self.function = Program(Path(path), "float32").function(function_name)

    def make_state(self):
        return self.function.new_state()

    def predict(self, inputs, state):
        return {name: value.astype(np.float16) for name, value in self.function(inputs, state).items()}


def test_the_session_of_a_mac(built, monkeypatch):
    """Its calls of coremltools; Core ML itself has run nothing here."""
    made = built("llama", SCHEMES["none"])
    want = simulated(made, HalfConstants())
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    monkeypatch.setattr(ct.models, "MLModel", FakeModel)
    with open_session(made[2], INFO | {"units": "CPU_ONLY"}, threads=1) as session:
        assert session.runtime == "Core ML, CPU_ONLY" and session.cache(0) is None
        np.testing.assert_allclose(session.forward(IDS)[0], want[-1], atol=2e-3 * np.abs(want).max())
        session.rewind(70)
        np.testing.assert_allclose(session.forward(IDS[70:73]), want[72:73], atol=2e-3 * np.abs(want).max())


def test_a_macos_without_states(built, monkeypatch):
    folder = built("llama", SCHEMES["none"])[2]
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.mac_ver", lambda: ("14.6", ("", "", ""), "arm64"))
    with pytest.raises(InputError, match=r"got: +14.6\n.*15 on"):
        open_session(folder, INFO, threads=1)


@pytest.mark.real
def test_a_package_of_another_model_fails_parity(tiny, tmp_path, capsys):
    """What the other engines' gates see, too. Lowered as it should be, the package passes."""
    model, out = tiny("smollm3"), tmp_path / "bundle"
    export(model, out, to=["coreml"], quant="int8", context=CONTEXT, probe_tokens=128)
    config = open_checkpoint(str(model)).config
    theta = with_rotary(config, lambda rotary: replace(rotary, theta=rotary.theta * 2))
    inverted = with_rotary(config, lambda rotary: None, next(iter(config.rotaries.values())))
    for wrong, code, stages in ((config, 0, set()), (theta, 1, {"engine"}), (inverted, 1, {"engine"})):
        relower(out, model, "coreml", wrong)
        assert command(["parity", str(out), "--quick", "--json"]) == code
        (report,) = json.loads(capsys.readouterr().out)
        assert {check["stage"] for check in report["checks"] if not check["passed"]} == stages


@pytest.mark.real
def test_coremltools_is_imported_without_what_it_does_not_need():
    code = (
        "import sys; from smolship.export.targets.coreml import emit; "
        "print([n for n in ('sklearn', 'executorch', 'torchao') if n in sys.modules]); import sklearn, executorch"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_hidden_state_that_fp16_does_not_hold(tmp_path):
    """Between norms on both sides it may pass 65,504, as Gemma 3's does: the package holds a 16th of it."""
    config = open_checkpoint(str(make_tiny(tmp_path / "model", "gemma3"))).config
    source = RandomSource(config)
    for name, values in source.tensors.items():
        if name.endswith("_out_norm"):
            values *= np.float32(30_000)
    weights = write_weights(source, config, SCHEMES["none"], tmp_path)
    want = run(config, Reference(config, weights, CONTEXT), IDS)
    plain = Reference(config, weights, CONTEXT, Half())
    assert not np.isfinite(run(config, plain, IDS)).all()
    half = run(config, Reference(config, weights, CONTEXT, target.numerics(weights)), IDS)
    assert np.abs(want - half).max() < 0.02 * np.abs(want).max()
    target.lower(Job(config, weights, CONTEXT), tmp_path)
    for arithmetic, wanted in (("float16", half), ("float32", want)):
        with open_session(tmp_path, INFO | {"arithmetic": arithmetic}, threads=1) as session:
            np.testing.assert_allclose(session.forward(IDS)[0], wanted[-1], atol=CLOSE[arithmetic] * np.abs(want).max())
            assert not session.nonfinite
