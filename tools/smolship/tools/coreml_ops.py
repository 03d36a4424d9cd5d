"""coremltools' own operator tests, run against our interpreter of Core ML packages.

    python -P -m smolship.tools.coreml_ops [--fast]

Nobody here wrote them: they compare a program's outputs with numbers by hand, numpy, torch or scipy. On a Mac they call
Core ML; here `MLModel.predict` and `make_state` call the interpreter. The module is the command and, with `-p`, the
pytest plugin that patches coremltools and counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from typing import IO, Any

import pytest

from smolship.runtime.process import environment, forget_working_folder, python

HERE = "smolship.tools.coreml_ops"
RESULT = "SMOLSHIP_COREML_OPS"  # environment variable: where the plugin writes its counts
UNKNOWN = "unknown operator"
# Where the operators of language models are tested. What else these files test, such as batch norms, ends as
# unsupported. Left out: convolution, pooling, recurrence, images, random numbers and control flow (but for `select`).
FILES = (
    "iOS14/test_activation.py",
    "iOS14/test_control_flow.py::TestSelect",
    "iOS14/test_elementwise_binary.py",
    "iOS14/test_elementwise_unary.py",
    "iOS14/test_linear.py",
    "iOS14/test_normalization.py",
    "iOS14/test_reduction.py",
    "iOS14/test_scatter_gather.py",
    "iOS14/test_tensor_operation.py",
    "iOS14/test_tensor_transformation.py",
    "iOS15/test_elementwise_unary.py",
    "iOS15/test_tensor_transformation.py",
    "iOS16/test_constexpr_ops.py",
    "iOS16/test_scatter_gather.py",
    "iOS16/test_tensor_operation.py",
    "iOS16/test_tensor_transformation.py",
    "iOS17/test_activation.py",
    "iOS17/test_elementwise_unary.py",
    "iOS17/test_linear.py",
    "iOS17/test_normalization.py",
    "iOS17/test_reduction.py",
    "iOS17/test_scatter_gather.py",
    "iOS17/test_tensor_operation.py",
    "iOS17/test_tensor_transformation.py",
    "iOS18/test_compression.py",
    "iOS18/test_states.py",
    "iOS18/test_tensor_transformation.py",
    "iOS18/test_transformers.py",
    "coreml_dialect/test_coreml_dialect.py",
)
ELSEWHERE = "not LocalResponseNorm and not NonMaximumSuppression"  # of vision models
# Failures that are explained: a part of the test's name -> why.
NO_PACKAGE = "it predicts through a neural network, the format before, which has no package to interpret"
KNOWN = {
    "TestSliceByIndex::test_slice_by_index": NO_PACKAGE,
    "test_ios17_invalid_indices": "indices out of bounds: it wants Core ML's own exception, or numbers that the "
    "specification leaves undefined; the interpreter refuses what numpy refuses",
    "TestSliceByIndex::test_slice_by_index_slice_squeeze_separate": NO_PACKAGE,
}
FAST = (
    "iOS14/test_linear.py",
    "iOS18/test_states.py",
    "iOS18/test_transformers.py",
    "coreml_dialect/test_coreml_dialect.py",
)


@dataclass
class Counts:
    """What became of the tests. A test that ran to its end without one prediction is not counted as passed."""

    passed: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # test -> the end of its message
    unsupported: dict[str, str] = field(default_factory=dict)  # test -> operator
    skipped: int = 0  # by the tests themselves
    nothing_run: int = 0  # tests that predict nothing: of types, of messages, of other formats

    def __str__(self) -> str:
        operators = ", ".join(f"{name} {count}" for name, count in Counter(self.unsupported.values()).most_common())
        return (
            f"{self.passed:,} passed, {len(self.failed):,} failed, {len(self.unsupported):,} unsupported "
            f"({operators or 'none'}); "
            f"{self.nothing_run:,} predict nothing, {self.skipped:,} skip themselves"
        )


def run_tests(files: tuple[str, ...] = FILES, processes: int = 2, log: IO[str] | None = None) -> Counts:
    """Run those files of coremltools' tests in a process of its own, whose output goes to `log` as it comes."""
    spec = util.find_spec("coremltools")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "converters" / "mil" / "mil" / "ops" / "tests"
    with tempfile.TemporaryDirectory() as work:
        command = python(
            "pytest",
            "-p",
            HERE,
            "-p",
            "no:cacheprovider",
            "--tb=line",
            "-n",
            str(processes),
            "-k",
            ELSEWHERE,
            "-c",
            os.devnull,
            "--rootdir",
            str(folder),
            *(str(folder / f) for f in files),
        )
        settings = environment() | {RESULT: work, "OPENBLAS_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command, cwd=work, env=settings, stdout=log or subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        except KeyboardInterrupt:
            return _sum(Path(work))  # of the tests so far
        if done.returncode not in (0, 1):
            raise RuntimeError((done.stdout or "")[-3000:])
        return _sum(Path(work))


def _sum(folder: Path) -> Counts:
    total = Counts()
    for file in folder.glob("*.json"):
        part = Counts(**json.loads(file.read_text()))
        total.passed += part.passed
        total.skipped += part.skipped
        total.nothing_run += part.nothing_run
        total.failed |= part.failed
        total.unsupported |= part.unsupported
    return total


# The plugin


class Plugin:
    """Counts outcomes; one a process."""

    def __init__(self) -> None:
        self.counts, self.predictions = Counts(), 0

    def patch(self) -> None:
        """Let coremltools' MLModel predict by the interpreter, and its tests believe that this is a Mac."""
        from coremltools import models
        from coremltools.converters.mil import testing_utils
        from coremltools.models import utils

        from smolship.runtime.mil.program import Program

        def program(model: Any) -> Program:
            if not hasattr(model, "interpreted"):
                model.interpreted = Program(Path(model.package_path), "float32")
            return model.interpreted

        def predict(model: Any, data: dict[str, Any], state: Any = None) -> Any:
            self.predictions += 1
            function = program(model).function(model.function_name or program(model).default)
            return function(_inputs(function, data), state)

        models.MLModel.predict = predict
        models.MLModel.make_state = lambda model: program(model).function(program(model).default).new_state()
        testing_utils._IS_MACOS = True
        utils._macos_version = testing_utils.coremltoolsutils._macos_version = lambda: (15, 0)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> Generator[None, Any, Any]:
        report = yield
        counts = self.counts
        if report.skipped:
            counts.skipped += 1
        elif report.failed:
            text = str(call.excinfo.value) if call.excinfo else ""
            if text.startswith(UNKNOWN):
                counts.unsupported[item.nodeid] = text.splitlines()[0].split()[2]
            else:
                counts.failed[item.nodeid] = text[-300:]
        elif report.when == "call" and self.predictions:
            counts.passed += 1
        elif report.when == "call":
            counts.nothing_run += 1
        if report.when == "call":
            self.predictions = 0
            self.write()
        return report

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Packages only: no neural networks, the format before."""
        items[:] = [item for item in items if "neuralnetwork" not in item.nodeid]

    def pytest_sessionfinish(self) -> None:
        self.write()

    def write(self) -> None:
        if folder := os.environ.get(RESULT):
            Path(folder, f"{os.getpid()}.json").write_text(json.dumps(vars(self.counts)))


def _inputs(function: Any, data: dict[str, Any]) -> dict[str, Any]:
    """The tests' inputs as the function declares them, as MLModel.predict casts them."""
    import numpy as np

    from smolship.runtime.mil.package import ARRAY_TYPES

    arrays = {name: np.asarray(value) for name, value in data.items()}
    return {name: arrays[name].astype(ARRAY_TYPES[declared.dtype]) for name, declared in function.inputs.items()}


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None) in (None, 0) or hasattr(config, "workerinput"):  # not the controller
        plugin = Plugin()
        plugin.patch()
        config.pluginmanager.register(plugin)


def main() -> None:
    forget_working_folder()
    counts = run_tests(FAST if "--fast" in sys.argv[1:] else FILES, log=sys.stderr)
    print(counts)
    for name, message in counts.failed.items():
        known = [why for part, why in KNOWN.items() if part in name]
        print(f"\n{name}\n{known[0] if known else message}")


if __name__ == "__main__":
    main()
