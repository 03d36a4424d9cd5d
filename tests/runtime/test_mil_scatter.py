"""A cache that is written by assignment, as coremltools converts it for systems without states."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from smolship.runtime.mil.program import Program


@pytest.mark.filterwarnings("ignore")
def test_an_assignment_to_a_slice_of_the_cache_equals_torch(tmp_path):
    import coremltools as ct
    import torch

    class Cached(torch.nn.Module):
        def forward(self, cache, keys):
            cache[:, :, 3:5] = keys
            return cache * 2

    cache, keys = (torch.randn(1, 2, n, 4, generator=torch.Generator().manual_seed(n)) for n in (8, 2))
    traced = torch.jit.trace(Cached(), (cache.clone(), keys))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = ct.convert(
            traced,
            inputs=[ct.TensorType("cache", cache.shape), ct.TensorType("keys", keys.shape)],
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        )
    assert made._mil_program.functions["main"].find_ops(op_type="scatter"), "another lowering: test that one"
    made.save(str(tmp_path / "a.mlpackage"))
    function = Program(tmp_path / "a.mlpackage", "float32").function("main")
    (found,) = function({"cache": cache.numpy(), "keys": keys.numpy()}).values()
    np.testing.assert_array_equal(found, Cached()(cache.clone(), keys).numpy())
