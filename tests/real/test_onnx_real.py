"""The ONNX target on SmolLM2-135M-Instruct: export's memory, parity within the noise floor, onnxruntime-genai."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from smolship.export.checkpoints import open_checkpoint
from smolship.export.reference import Reference, run
from smolship.export.targets import Job
from smolship.export.targets import onnx as target
from smolship.export.weights import SCHEMES, Weights, write_weights
from smolship.runtime.engines.onnx import open_session

pytestmark = pytest.mark.real

INFO = {"file": "model.onnx", "context": 2048}
LOWER = """
import sys
from pathlib import Path
from smolship.export.checkpoints import open_checkpoint
from smolship.export.targets import Job, onnx
from smolship.export.weights import Weights
checkpoint, folder = open_checkpoint(sys.argv[1]), Path(sys.argv[2])
onnx.lower(Job(checkpoint.config, Weights(folder), 2048, checkpoint.files), folder)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
PROMPTS = [
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "The quick brown fox",
    "def fibonacci(n):",
]


@pytest.fixture(scope="module")
def built(demo_model, tmp_path_factory):
    """built(scheme name) -> the folder with weights and artifact, made once."""
    made: dict[str, Path] = {}

    def get(scheme: str) -> Path:
        if scheme not in made:
            made[scheme] = tmp_path_factory.mktemp(scheme)
            checkpoint = open_checkpoint(str(demo_model))
            weights = write_weights(checkpoint, checkpoint.config, SCHEMES[scheme], made[scheme])
            target.lower(Job(checkpoint.config, weights, 2048, checkpoint.files), made[scheme])
        return made[scheme]

    return get


def test_lowering_takes_little_memory(demo_model, tmp_path):
    checkpoint = open_checkpoint(str(demo_model))
    write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path)
    child = [sys.executable, "-c", LOWER, str(demo_model), str(tmp_path)]
    peak_kib = int(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
    assert peak_kib * 1024 <= 0.8e9
    assert (tmp_path / "model.onnx.data").stat().st_size < 105e6


@pytest.fixture(scope="module")
def encode(demo_model):
    tokenizer = Tokenizer.from_file(str(demo_model / "tokenizer.json"))
    return lambda text: tokenizer.encode(text).ids


def divergence(a: np.ndarray, b: np.ndarray) -> float:
    """Mean KL(a || b) in nats over rows of logits."""
    p, q = (torch.log_softmax(torch.from_numpy(x).double(), -1) for x in (a, b))
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.parametrize("scheme", ["none", "int8", "int4"])
def test_the_engine_is_as_good_as_its_arithmetic(demo_model, built, encode, scheme):
    """Two simulations that differ by one ulp show how far rounding alone carries the logits; the engine is one more."""
    config, weights = open_checkpoint(str(demo_model)).config, Weights(built(scheme))
    ids = encode(Path(subprocess.__file__).read_text()[:2000])[:256]

    def simulate(ulp: int | None) -> np.ndarray:
        return run(config, Reference(config, weights, len(ids), target.numerics(weights), ulp), ids)

    simulation, floor = simulate(None), divergence(simulate(1), simulate(2))
    with open_session(built(scheme), INFO, threads=2) as session:
        engine = session.forward(ids, "all")
        session.rewind(0)
        prefill = session.forward(ids)
    print(
        f"{scheme}: floor {floor:.3g}, engine {divergence(simulation, engine):.3g}, prefill against decode "
        f"{divergence(engine[-1:], prefill):.3g}"
    )
    assert divergence(simulation, engine) < 2 * floor + 1e-7
    assert divergence(engine[-1:], prefill) < 20 * floor + 1e-7  # one token: its share of the floor varies


@pytest.mark.parametrize("scheme", ["int4", "int8", "none"])
def test_genai_says_the_same(built, encode, scheme):
    import onnxruntime_genai as genai

    model = genai.Model(str(built(scheme)))
    for prompt in PROMPTS:
        ids = encode(prompt)
        assert genai.Tokenizer(model).encode(prompt).tolist() == ids
        parameters = genai.GeneratorParams(model)
        parameters.set_search_options(max_length=len(ids) + 64, do_sample=False)
        generator = genai.Generator(model, parameters)
        generator.append_tokens(ids)
        while not generator.is_done():
            generator.generate_next_token()
        theirs = generator.get_sequence(0).tolist()
        with open_session(built(scheme), INFO, threads=2) as session:
            logits = session.forward(ids)[0]
            for token in theirs[len(ids) :]:
                best = np.argsort(logits)[-2:]
                assert token == best[1], f"genai says {token}; our gap is {logits[best[1]] - logits[best[0]]:.3g}"
                logits = session.forward([token])[0]
