"""Export a model, and check the bundle: weights read back, and quick parity of every target.

    python examples/export_and_check.py ./SmolLM2-135M-Instruct --out smollm2 --to onnx,gguf

Exit code 1 where a check fails.
"""

from __future__ import annotations

import argparse
import sys

from smolship.export import export
from smolship.runtime.errors import SmolshipError
from smolship.runtime.parity import parity
from smolship.runtime.readback.compare import compare


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint's folder, a .gguf file or a Hub id")
    parser.add_argument("--out", default="bundle")
    parser.add_argument("--to", default="onnx", help="targets, separated by commas")
    parser.add_argument("--quant", default="int4", choices=("int4", "int8", "none"))
    parser.add_argument("--context", type=int, default=2048)
    given = parser.parse_args()

    bundle = export(given.model, given.out, to=given.to.split(","), quant=given.quant, context=given.context)
    print(f"{bundle.path}: weights {bundle.manifest.weights_digest[:16]}")

    passed = True
    for held in compare(bundle, bundle.manifest.targets):
        print(f"{held.target}: {len(held.entries)} tensors read back, {len(held.wrong)} differ")
        passed &= not held.wrong
    for target in bundle.manifest.targets:
        report = parity(bundle, target, quick=True)
        total = report.checks[-1]  # from the original to the engine
        print(f"{target}: parity {'passed' if report.passed else 'FAILED'}, KL to the original {total.kl:.3g} nats")
        passed &= report.passed
    return 0 if passed else 1


if __name__ == "__main__":  # export starts processes of its own
    try:
        sys.exit(main())
    except SmolshipError as error:  # what is wrong, what was got, what was expected, what to do
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
