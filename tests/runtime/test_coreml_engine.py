"""The Core ML engine on packages that are no decoder's, and on requests that it does not know."""

from __future__ import annotations

import pytest

from smolship.runtime.engines.coreml import open_session
from smolship.runtime.errors import InputError
from tests.runtime.mil_maker import package

INFO = {"file": "model.mlpackage", "arithmetic": "float32"}  # the interpreter, on a Mac too


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coreml")
    package(folder / "model.mlpackage", lambda mb, x: mb.relu(x=x), {"x": ((1, 4), "fp16")})
    return folder


def test_a_package_of_another_kind(foreign):
    with pytest.raises(InputError, match=r"unknown function of the package\n.*prefill\n.*main"):
        open_session(foreign, INFO, threads=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"arithmetic": "bfloat16"}, "float16, float32"),
        ({"units": "TPU"}, "CPU_AND_GPU"),
        ({"file": "../x"}, "leaves"),
        ({"file": "none.mlpackage"}, "Manifest.json"),
    ],
)
def test_requests_that_it_does_not_know(foreign, wrong, message):
    with pytest.raises(InputError, match=message):
        open_session(foreign, INFO | wrong, threads=1)
