"""The ExecuTorch target on SmolLM2-135M: the cost of the export, the simulation, and ExecuTorch's own LLM runner."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from smolship.export.checkpoints import open_checkpoint
from smolship.export.reference import Reference, run
from smolship.export.targets import executorch
from smolship.export.weights import Weights
from smolship.runtime.engines.executorch import open_session

pytestmark = pytest.mark.real

EXPORT = """
import json, sys
from pathlib import Path
from smolship.export.checkpoints import open_checkpoint
from smolship.export.targets import Job, executorch
from smolship.export.weights import SCHEMES, write_weights
from smolship.runtime.memory import read_memory
folder, checkpoint = Path(sys.argv[2]), open_checkpoint(sys.argv[1])
weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], folder)
executorch.lower(Job(checkpoint.config, weights, 2048), folder)
print(json.dumps(read_memory().peak_bytes))
"""
RUNNER = """
import json, sys
import executorch.extension.llm.custom_ops.custom_ops, executorch.kernels.quantized
from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner
runner = TextLLMRunner(sys.argv[1], sys.argv[2])
config = GenerationConfig(max_new_tokens=64, temperature=0.0, echo=False)
answers = []
for prompt in json.loads(sys.argv[3]):
    answers.append([])
    runner.generate(prompt, config, answers[-1].append)
print("\\n" + json.dumps(answers))
"""
PROMPTS = [
    " ".join(f"Line {i} of the list says that {i} and {i + 1} make {2 * i + 1}." for i in range(1, 40))
    + " Let me now tell you a story about a fox:",
    " And what did the hunter say to that?",
]


def child(code: str, *args: str) -> Any:
    """What the last line of a fresh Python process says."""
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def exported(demo_model, tmp_path_factory):
    """Folder of the int4 artifact, and the peak memory in bytes of making it."""
    folder = tmp_path_factory.mktemp("executorch")
    return folder, child(EXPORT, str(demo_model), str(folder))


def test_the_export_takes_little_memory(exported):
    assert exported[1] < 1e9


def test_logits_equal_the_simulation(exported, demo_model):
    """Greedy choices mostly agree, and the logits differ by what int8 activations let one rounding do."""
    folder, _ = exported
    config, weights = open_checkpoint(str(demo_model)).config, Weights(folder)
    ids = Tokenizer.from_file(str(demo_model / "tokenizer.json")).encode(PROMPTS[0]).ids[:320]
    want = run(config, Reference(config, weights, 320, executorch.numerics(weights)), ids)
    with open_session(folder, {"file": "model.pte"}, threads=2) as session:
        got = session.forward(ids, "all")
        assert (got.argmax(axis=1) == want.argmax(axis=1)).mean() > 0.85
        assert kl(want, got).mean() < 0.1
        session.rewind(0)
        assert kl(want[-1:], session.forward(ids)).mean() < 0.2


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Divergence of softmax(q) from softmax(p), by rows."""
    p, q = (x - np.logaddexp.reduce(x.astype(np.float64), axis=1, keepdims=True) for x in (p, q))
    return (np.exp(p) * (p - q)).sum(axis=1)


def test_the_llm_runner_says_what_a_session_says(exported, demo_model):
    """A prompt of several chunks, then a second turn without a reset: 64 greedy tokens each, piece by piece."""
    folder, _ = exported
    path = demo_model / "tokenizer.json"
    theirs = child(RUNNER, str(folder / "model.pte"), str(path), json.dumps(PROMPTS))
    tokenizer = Tokenizer.from_file(str(path))
    with open_session(folder, {"file": "model.pte"}, threads=2) as session:
        assert session.chunk is not None
        for prompt, pieces in zip(PROMPTS, theirs, strict=True):
            ids = tokenizer.encode(prompt, add_special_tokens=False).ids
            assert prompt is not PROMPTS[0] or len(ids) > 2 * session.chunk
            logits, ours = session.forward(ids), []
            while True:
                ours.append(int(logits.argmax()))
                if len(ours) == 64:
                    break
                logits = session.forward(ours[-1:])
            assert pieces == [tokenizer.decode([token], skip_special_tokens=False) for token in ours]
