"""The weights of the real model, read back from every target."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from smolship.export import export
from smolship.export.targets import TARGETS
from smolship.runtime.bundle import open_bundle
from smolship.tools import onehot
from smolship.tools.cli import run

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]
PEAK = """
import resource, sys
from smolship.runtime.bundle import open_bundle
from smolship.runtime.weights.compare import compare
bundle = open_bundle(sys.argv[1])
assert not any(one.wrong for one in compare(bundle, sys.argv[2:]))
print([int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")][0])
"""


@pytest.fixture(scope="module")
def bundle(demo_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("weights") / "smollm2"
    export(demo_model, out, to=list(TARGETS), probe_tokens=0)
    return out


def test_all_targets_hold_the_same_weights_and_reading_them_is_quick(bundle, capsys):
    start = time.perf_counter()
    assert run(["weights", str(bundle), "--json"]) == 0
    assert time.perf_counter() - start < 60
    report = json.loads(capsys.readouterr().out)
    assert report["equal"] and report["digest"] == open_bundle(bundle).manifest.weights_digest
    assert {target["tensors"] for target in report["targets"].values()} == {272}


@pytest.mark.parametrize("target", TARGETS)
def test_memory_holds_a_tensor_and_no_model(bundle, target):
    """Files are mapped; what is copied of them goes again."""
    done = subprocess.run([sys.executable, "-c", PEAK, str(bundle), target], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150 << 10  # KiB; the weights are 90 MB


@pytest.mark.parametrize("target", TARGETS)
def test_every_engine_reveals_our_matrices(bundle, target):
    verdicts = onehot.reveal(open_bundle(bundle), target, layer=29)
    assert len(verdicts) == 9 and all(v.equal for v in verdicts), verdicts
