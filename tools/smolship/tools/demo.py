"""`make demo`: the whole job on a real model. Fetch, export, weights read back and revealed, parity, latency, one
answer of each engine, report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from smolship.tools.console import Screen, begin, exit_code
from smolship.tools.demo_model import make_demo_model
from smolship.tools.display import Steps
from smolship.tools.report.results import full_report


def main() -> int:
    begin()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(".cache/SmolLM2-135M-Instruct"))
    parser.add_argument("--bundle", type=Path, default=Path("build/demo"))
    parser.add_argument("--to", default="executorch,onnx,coreml,gguf")
    parser.add_argument("--quant", default="int4")
    options = parser.parse_args()
    console = Screen(stderr=True)

    def command() -> int:
        make_demo_model(options.model)
        from smolship.export import export

        with Steps(console) as steps:
            bundle = export(  # whose times are reported, and so are of this run
                options.model,
                options.bundle,
                to=options.to.split(","),
                quant=options.quant,
                cache=False,
                progress=steps.update,
            )
        return 0 if full_report(bundle, options.bundle.parent / "report.html", reveal=True) else 1

    return exit_code(command, console)


if __name__ == "__main__":
    sys.exit(main())
