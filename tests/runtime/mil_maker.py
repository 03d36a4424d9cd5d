"""Small Core ML packages by coremltools' own builder and converter, as the interpreter's tests want them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def package(
    path: Path,
    build: Callable[..., Any],
    inputs: dict[str, tuple[Any, ...]],
    states: dict[str, tuple[int, ...]] | None = None,
) -> Path:
    """A package of one function, `main`. `inputs` gives (shape, type name), states are fp16."""
    from smolship.export.targets.coreml.light import Function, Program, ct, mb, mil_convert, types

    placeholders = {name: mb.placeholder(shape, getattr(types, kind)) for name, (shape, kind) in inputs.items()}
    for name, shape in (states or {}).items():
        placeholders[name] = mb.state_tensor_placeholder(shape, types.fp16)
    program = Program()
    with Function(placeholders, opset_version=ct.target.iOS18) as function:
        made = build(mb, **function.inputs)
        function.set_outputs(list(made) if isinstance(made, tuple) else [made])
    program.add_function("main", function)
    program.skip_all_passes = True
    mil_convert(
        program,
        convert_from="milinternal",
        convert_to="mlprogram",
        skip_model_load=True,
        compute_units=ct.ComputeUnit.CPU_ONLY,
        specification_version=ct.target.iOS18.value,
        package_dir=str(path),
    )
    return path


def edit(path: Path, change: Callable[[Any], None]) -> Path:
    """Change the program's protobuf."""
    from smolship.runtime.mil.package import protos

    file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model = protos().Model()
    model.ParseFromString(file.read_bytes())
    change(model)
    file.write_bytes(model.SerializeToString())
    return path


def operations(model: Any) -> Any:
    function = model.mlProgram.functions["main"]
    return function.block_specializations[function.opset].operations


def weight_file(path: Path) -> Path:
    return path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float16)
