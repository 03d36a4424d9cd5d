"""The interpreter of Core ML packages: on packages that coremltools made, and on damaged ones."""

from __future__ import annotations

import json
import re
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from smolship.runtime.errors import InputError
from smolship.runtime.mil import matrix, pointwise, tensors
from smolship.runtime.mil.program import Program
from tests.runtime.mil_maker import edit, operations, package, random, weight_file

WEIGHT = random(64, 96)


@pytest.fixture(scope="module")
def linear_package(tmp_path_factory):
    return package(
        tmp_path_factory.mktemp("mil") / "a.mlpackage",
        lambda mb, x: mb.linear(x=x, weight=WEIGHT),
        {"x": ((1, 96), "fp16")},
    )


@pytest.fixture
def damaged(linear_package, tmp_path):
    import shutil

    return shutil.copytree(linear_package, tmp_path / "a.mlpackage")


def run(path, arithmetic="float32", state=None, **inputs):
    function = Program(path, arithmetic).function("main")
    return list(function(inputs, function.new_state() if state is None else state).values())


def refusal(path, *parts):
    with pytest.raises(InputError) as caught:
        Program(path)
    for part in parts:
        assert part in str(caught.value), caught.value


def test_linear(linear_package):
    x = random(1, 96, seed=1).astype(np.float32)
    exact = x.astype(np.float64) @ WEIGHT.T.astype(np.float64)
    (single,) = run(linear_package, x=x)
    np.testing.assert_allclose(single, exact, rtol=1e-5, atol=1e-5)
    (half,) = run(linear_package, "float16", x=x)
    assert np.array_equal(half, half.astype(np.float16))
    assert not np.array_equal(single, half)
    np.testing.assert_allclose(half, exact, rtol=2**-10, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 5])
def test_a_large_product_is_shared_by_two_threads(monkeypatch, rows):
    x, weight = random(rows, 3, 32, seed=1).astype(np.float32), random(65, 32).astype(np.float32)
    alone = matrix.linear(x, weight)
    calls = []
    with ThreadPoolExecutor(1, initializer=lambda: calls.append(1)) as helper:
        with matrix.shared_with(helper):
            assert np.array_equal(matrix.linear(x, weight), alone) and not calls  # too small to be worth it
            monkeypatch.setattr(matrix, "WORTH_SHARING", 0)
            np.testing.assert_allclose(matrix.linear(x, weight), alone, rtol=1e-5, atol=1e-5)
        assert calls == [1]
        np.testing.assert_allclose(matrix.linear(x, weight), alone, rtol=1e-5, atol=1e-5)
    assert calls == [1]


def test_a_product_with_a_constant_of_another_type(tmp_path):
    """It is of the other operand's type."""
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = package(tmp_path / "a.mlpackage", lambda mb, x: mb.matmul(x=x, y=weight), {"x": ((1, 2), "int32")})
    (made,) = run(path, x=np.array([[3, 4]], np.int32))
    assert made.dtype == np.int32 and made.tolist() == [[12, 19, 26]]


def test_zeros_of_a_longer_shape_count_from_the_end():
    x = np.arange(6).reshape(2, 3)
    assert tensors.reshape(x, [1, 0, -1, 0]).shape == (1, 1, 2, 3)
    assert tensors.reshape(x, [0, 3]).shape == (2, 3)


def test_erf():
    import math

    x = np.linspace(-7, 7, 3001)
    assert np.abs(pointwise.erf(x) - [math.erf(v) for v in x]).max() < 1e-10
    assert np.isnan(pointwise.erf(np.array([np.nan])))[0]


def append(mb, x, position, cache):
    """Row `position` of the state becomes x; the sum over all rows is given back."""
    begin = mb.concat(values=[position, [0]], axis=0)
    end = mb.concat(values=[mb.add(x=position, y=np.int32(1)), [8]], axis=0)
    updated = mb.slice_update(x=mb.read_state(input=cache), update=x, begin=begin, end=end)
    whole = mb.coreml_update_state(state=cache, value=updated)
    return mb.reduce_sum(x=whole, axes=[0])


INPUTS = {"x": ((1, 8), "fp16"), "position": ((1,), "int32")}


def test_a_state_is_updated_where_it_lies(tmp_path):
    path = package(tmp_path / "a.mlpackage", append, INPUTS, {"cache": (16, 8)})
    function = Program(path, "float32").function("main")
    state = function.new_state()
    lies = state["cache"].ctypes.data
    for position in range(3):
        (total,) = function(
            {"x": np.full((1, 8), position + 1, np.float32), "position": np.array([position], np.int32)}, state
        ).values()
    assert total.tolist() == [6.0] * 8
    assert state["cache"][:4, 0].tolist() == [1, 2, 3, 0] and state["cache"].ctypes.data == lies
    assert [s.bound.func.__name__ for s in function.instructions if s.kind == "slice_update"] == [
        "slice_update_in_place"
    ]
    with pytest.raises(InputError, match=re.compile("slice_update .*function main", re.S)):
        function({"x": np.zeros((1, 8), np.float32), "position": np.array([16], np.int32)}, state)


def test_what_was_read_before_a_write_stays_as_it_was(tmp_path):
    def build(mb, x, position, cache):
        before = mb.read_state(input=cache)
        row = mb.slice_by_index(x=before, begin=[0, 0], end=[1, 8])
        return row, append(mb, x, position, cache), mb.identity(x=before)

    path = package(tmp_path / "a.mlpackage", build, INPUTS, {"cache": (4, 8)})
    function = Program(path, "float32").function("main")
    state = {"cache": np.ones((4, 8), np.float32)}
    ask = {"x": np.full((1, 8), 5, np.float32), "position": np.zeros(1, np.int32)}
    row, total, before = function(ask, state).values()
    assert row.tolist() == [[1.0] * 8] and total.tolist() == [8.0] * 8 and before.tolist() == [[1.0] * 8] * 4
    function(ask | {"x": np.full((1, 8), 9, np.float32)}, state)
    assert before.tolist() == [[1.0] * 8] * 4, "an output must not change with the next call"


def test_the_operator_that_overflows_is_named(tmp_path):
    def build(mb, x):
        return mb.rsqrt(x=mb.reduce_mean(x=mb.mul(x=x, y=x, name="squares"), axes=[-1]))

    path = package(tmp_path / "a.mlpackage", build, {"x": ((1, 4), "fp16")})
    x = np.array([[300, 200, 1, 2]], np.float32)  # 300² is above 65,504
    for arithmetic, expected in (("float32", {}), ("float16", {"mul squares in function main": 1})):
        program = Program(path, arithmetic)
        program.function("main")({"x": x})
        assert program.nonfinite == expected


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("offset", [False, True])
def test_blockwise_constants_equal_what_coremltools_makes_of_them(tmp_path, bits, offset):
    from coremltools.converters.mil.mil import types
    from coremltools.converters.mil.mil.ops.defs.iOS18 import constexpr_blockwise_shift_scale

    kind = types.np_int4_dtype if bits == 4 else np.int8
    codes = np.random.default_rng(bits).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (48, 64), np.int8)
    scale = np.abs(random(48, 2)) + np.float16(0.01)
    shift = np.random.default_rng(1).integers(-8, 8, (48, 2), np.int8).astype(kind) if offset else None
    more = {"offset": shift} if offset else {}

    def build(mb, x):
        return mb.linear(x=x, weight=mb.constexpr_blockwise_shift_scale(data=codes.astype(kind), scale=scale, **more))

    path = package(tmp_path / "a.mlpackage", build, {"x": ((64, 64), "fp16")})
    (made,) = run(path, "float16", x=np.eye(64, dtype=np.float32))
    theirs = constexpr_blockwise_shift_scale.decompress(codes, scale, None if shift is None else shift.astype(np.int8))
    assert np.array_equal(made.T, theirs.astype(np.float32))


# Damage


def test_a_shape_that_is_not_as_declared(damaged):
    def change(model):
        operations(model)[-1].outputs[0].type.tensorType.dimensions[1].constant.size = 65

    function = Program(edit(damaged, change)).function("main")
    with pytest.raises(InputError, match=r"operator linear \w+ in function main(.|\n)*\[1, 64\].*\[1, 65\]"):
        function({"x": np.zeros((1, 96), np.float32)})


def test_a_type_that_is_not_as_declared(damaged):
    def change(model):
        operations(model)[-1].outputs[0].type.tensorType.dataType = 11  # fp32

    refusal(edit(damaged, change), "operator linear", "function main", "fp32", "fp16")


def test_inputs_that_are_not_as_declared(linear_package):
    function = Program(linear_package).function("main")
    for wrong in (np.zeros((1, 95), np.float32), np.zeros((1, 96), np.int32)):
        with pytest.raises(InputError, match="input x of function main is not as declared"):
            function({"x": wrong})
    with pytest.raises(InputError, match="takes other inputs"):
        function({})


def test_an_unknown_operator(damaged):
    refusal(
        edit(damaged, lambda model: setattr(operations(model)[-1], "type", "lstm")),
        "unknown operator lstm in function main",
        "linear",
    )


def test_a_value_that_is_not_there(damaged):
    def change(model):
        operations(model)[-1].inputs["x"].arguments[0].name = "y"

    refusal(edit(damaged, change), "operator linear", "'y' is not there yet")


def test_an_operator_that_takes_its_own_output(damaged):
    def change(model):
        operations(model)[-1].inputs["x"].arguments[0].name = operations(model)[-1].outputs[0].name

    refusal(edit(damaged, change), "operator linear", "is not there yet")


def test_a_model_that_is_no_program(damaged):
    refusal(edit(damaged, lambda model: model.neuralNetwork.SetInParent()), "no ML program", "neuralNetwork")


def test_noise_in_place_of_the_program(damaged):
    (damaged / "Data" / "com.apple.CoreML" / "model.mlmodel").write_bytes(bytes(range(256)) * 8)
    refusal(damaged, "cannot be read")


def blobs(model):
    """Where constants say that they lie."""
    constants = [op.attributes["val"] for op in operations(model) if op.type == "const"]
    return [value.blobFileValue for value in constants if value.WhichOneof("value") == "blobFileValue"]


def blob(path):
    """Where the first blob's metadata lies, and the file's bytes."""
    content = bytearray(weight_file(path).read_bytes())
    return content.index(struct.pack("<I", 0xDEADBEEF)), content


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [(0, "<I", 1), (4, "<I", 2), (8, "<Q", 1 << 62), (8, "<Q", 64), (16, "<Q", 1 << 62), (16, "<Q", (1 << 64) - 1)],
    ids=["sentinel", "type", "huge", "short", "far", "overflow"],
)
def test_a_blob_that_lies(damaged, offset, form, value):
    start, content = blob(damaged)
    struct.pack_into(form, content, start + offset, value)
    weight_file(damaged).write_bytes(content)
    refusal(damaged, "operator const", "function main", "the blob at 64")


@pytest.mark.parametrize("value", [0, 63, 1 << 40, 1 << 63])
def test_a_blob_that_lies_nowhere(damaged, value):
    def change(model):
        for constant in blobs(model):
            constant.offset = value

    refusal(edit(damaged, change), "operator const", "no blob can lie")


def test_a_truncated_weight_file(damaged):
    content = weight_file(damaged).read_bytes()
    for size in (0, 63, 64, 130, len(content) - 1):
        weight_file(damaged).write_bytes(content[:size])
        refusal(damaged, "operator const")


@pytest.mark.parametrize("name", ["@model_path/../../../../outside.bin", "/etc/passwd", "@model_path/weights/none.bin"])
def test_weights_from_elsewhere(damaged, name):
    (damaged.parent / "outside.bin").write_bytes(weight_file(damaged).read_bytes())

    def change(model):
        for constant in blobs(model):
            constant.fileName = name

    with pytest.raises(InputError, match=r"leaves its folder|no weight file"):
        Program(edit(damaged, change))


def test_a_constant_too_large_to_make(tmp_path):
    path = package(
        tmp_path / "a.mlpackage",
        lambda mb, x: mb.add(x=x, y=mb.fill(shape=[4, 4], value=np.float16(1))),
        {"x": ((4, 4), "fp16")},
    )

    def change(model):
        for operation in operations(model):
            for output in operation.outputs:
                if operation.type in ("fill", "add"):
                    output.type.tensorType.dimensions[0].constant.size = 1 << 40

    refusal(edit(path, change), "too large")


@pytest.mark.parametrize("items", [None, {}, {"a": {}}, {"a": {"path": "../../x"}}])
def test_a_manifest_that_names_nothing_inside(damaged, items):
    manifest = {} if items is None else {"rootModelIdentifier": "a", "itemInfoEntries": items}
    (damaged / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"names no model|leaves its folder"):
        Program(damaged)


# What others made: coremltools' converter, and its compressor


class _Norm:
    @staticmethod
    def of(x, eps=1e-5):
        import torch

        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def small_decoder():
    """Embedding, two blocks of attention and a gated MLP, a tied head; written for this test."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self, width, heads):
            super().__init__()
            self.heads = heads
            self.qkv, self.o = nn.Linear(width, 3 * width), nn.Linear(width, width, bias=False)
            self.gate, self.up = nn.Linear(width, 2 * width, bias=False), nn.Linear(width, 2 * width, bias=False)
            self.down = nn.Linear(2 * width, width, bias=False)

        def forward(self, x):
            b, s, w = x.shape
            q, k, v = (t.view(b, s, self.heads, -1).transpose(1, 2) for t in self.qkv(_Norm.of(x)).chunk(3, -1))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.o(mixed.transpose(1, 2).reshape(b, s, w))
            y = _Norm.of(x)
            return x + self.down(F.silu(self.gate(y)) * self.up(y))

    class Decoder(nn.Module):
        def __init__(self, vocab=200, width=64):
            super().__init__()
            self.embed = nn.Embedding(vocab, width)
            self.blocks = nn.ModuleList([Block(width, 4) for _ in range(2)])

        def forward(self, ids):
            x = self.embed(ids)
            for block in self.blocks:
                x = block(x)
            return F.linear(_Norm.of(x), self.embed.weight)

    torch.manual_seed(3)
    return Decoder().eval()


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """coremltools' own conversion of that decoder: (its MLModel, the package, ids, torch's logits)."""
    import coremltools as ct
    import torch

    model, ids = small_decoder(), torch.randint(0, 200, (1, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(ids).numpy()
        program = torch.export.export(model, (ids.int(),), strict=False).run_decompositions({})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = ct.convert(
            program,
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        )
    path = tmp_path_factory.mktemp("converted") / "a.mlpackage"
    made.save(str(path))
    return made, path, ids.numpy().astype(np.int32), expected


def test_a_converted_decoder_equals_torch(converted):
    _, path, ids, expected = converted
    function = Program(path, "float32").function("main")
    (logits,) = function({next(iter(function.inputs)): ids}).values()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=2e-5)


def test_a_compressed_decoder_equals_torch_with_those_weights(converted, tmp_path):
    """Compressed to int4 by coremltools, expanded for torch by coremltools: our reading of the package is the third."""
    import torch
    from coremltools.optimize import coreml as cto

    made, _, ids, exact = converted
    how = cto.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=32, weight_threshold=512
    )
    compressed = cto.linear_quantize_weights(made, cto.OptimizationConfig(global_config=how))
    compressed.save(str(tmp_path / "a.mlpackage"))
    expanded = cto.decompress_weights(compressed)._mil_program.functions["main"]
    constants = {op.name: op.outputs[0].val for op in expanded.find_ops(op_type="const")}
    model, changed = small_decoder(), 0
    for name, weight in model.state_dict().items():
        found = [value for key, value in constants.items() if name.replace(".", "_") in key and "zero" not in key]
        (value,) = [v for v in found if v.shape == tuple(weight.shape)]
        changed += not np.array_equal(value, weight.numpy())
        weight.copy_(torch.from_numpy(np.array(value)))
    assert changed == 11, "every matrix should have been compressed"
    with torch.no_grad():
        expected = model(torch.from_numpy(ids)).numpy()
    function = Program(tmp_path / "a.mlpackage", "float32").function("main")
    (logits,) = function({next(iter(function.inputs)): ids}).values()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=5e-5)
    assert np.abs(logits - exact).max() > 0.1, "and it is another model than the one before"
