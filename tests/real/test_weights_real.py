"""The weights of the real model, read back from every target."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest

from smolship.export import export
from smolship.export.targets import TARGETS
from smolship.runtime.bundle import open_bundle
from smolship.runtime.readback.compare import compare
from smolship.tools import onehot
from smolship.tools.cli import run

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]


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
def test_memory_holds_a_piece_of_a_tensor_and_no_model(bundle, target):
    """Files are mapped; what is copied of them, in pieces of 4 million numbers, goes again."""
    opened = open_bundle(bundle)
    tracemalloc.start()
    try:
        assert not compare(opened, [target])[0].wrong
        assert tracemalloc.get_traced_memory()[1] < 32 << 20  # the weights are 90 MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("target", TARGETS)
def test_every_engine_reveals_our_matrices(bundle, target):
    verdicts = onehot.reveal(open_bundle(bundle), target, layer=29)
    assert len(verdicts) == 9 and all(v.equal for v in verdicts), verdicts
