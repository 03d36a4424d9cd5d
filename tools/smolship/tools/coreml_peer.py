"""Time and memory of our Core ML export beside coremltools' own converter, each in a process of its own:

    python -P -m smolship.tools.coreml_peer MODEL

Ours: the decoder's trace walked into int4 and fp16 packages of two functions with a cache. Theirs: `ct.convert` of the
model in transformers (one function, no cache, fp16), the least that it can be asked for. Imports, the reading of the
checkpoint and the quantizing are left out of the seconds, and count in the memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from smolship.runtime.memory import read_memory
from smolship.runtime.process import environment, python

CONTEXT, TOKENS = 2048, 64


def ours(model: str, scheme: str, folder: Path) -> float:
    """Seconds of our target."""
    import coremltools  # noqa: F401

    from smolship.export.checkpoints import open_checkpoint
    from smolship.export.targets import Job, coreml
    from smolship.export.weights import SCHEMES, write_weights

    checkpoint = open_checkpoint(model)
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES[scheme], folder)
    start = time.monotonic()
    coreml.lower(Job(checkpoint.config, weights, CONTEXT), folder)
    return time.monotonic() - start


def theirs(model: str, folder: Path) -> float:
    """Seconds of the export by torch, `ct.convert` and the saving."""
    import coremltools as ct
    import numpy as np
    import torch
    import transformers
    from coremltools.converters.mil.frontend.torch import ops
    from coremltools.converters.mil.frontend.torch.torch_op_registry import register_torch_op

    # numpy 2.4 no longer makes a number of an array of one element, as coremltools 9.0 expects it to.
    cast = ops._cast
    ops._cast = lambda context, node, kind, name: cast(context, node, lambda x: kind(np.asarray(x).item()), name)

    @register_torch_op
    def alias(context, node):  # type: ignore[no-untyped-def]
        context.add(context[node.inputs[0]], node.name)

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
            # A mask of ours: coremltools knows no `diff`, with which transformers looks for packed sequences.
            self.register_buffer("mask", torch.full((1, 1, TOKENS, TOKENS), -1e4).triu(1))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.model(ids, attention_mask=self.mask, use_cache=False).logits

    whole = Logits()
    start = time.monotonic()
    program = torch.export.export(whole, (torch.zeros(1, TOKENS, dtype=torch.int64),), strict=False)
    package = ct.convert(
        program.run_decompositions({}), minimum_deployment_target=ct.target.iOS18, skip_model_load=True
    )
    package.save(str(folder / "theirs.mlpackage"))
    return time.monotonic() - start


def child(*arguments: str) -> tuple[float, int]:
    """Seconds, and bytes of memory at the peak, of one export."""
    command = python(__spec__.name, *arguments)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment(active=True))
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def main() -> None:
    model, *kind = sys.argv[1:]
    if kind:
        with tempfile.TemporaryDirectory() as folder:
            seconds = theirs(model, Path(folder)) if kind == ["ct.convert"] else ours(model, kind[0], Path(folder))
        print(json.dumps([seconds, read_memory().peak_bytes]))
        return
    print(f"{'':24}{'seconds':>10}{'peak MB':>10}")
    for name in ("int4", "none", "ct.convert"):
        seconds, peak = child(model, name)
        print(f"{name:24}{seconds:10.1f}{peak / 1e6:10.0f}")


if __name__ == "__main__":
    main()
