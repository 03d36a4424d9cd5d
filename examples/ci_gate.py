"""A gate for a CI system: parity of every target, and decoding speed against a baseline of the same machine.

    python examples/ci_gate.py smollm2 --baseline baseline.json --junit parity.xml --max-kl 0.4

The first run writes the baseline. Exit code 1 where parity fails or a target decodes slower than it did.
"""

import argparse
import json
import sys
from pathlib import Path

from smolship.runtime.bench import BenchReport
from smolship.runtime.bundle import default_threads, open_bundle
from smolship.runtime.errors import SmolshipError
from smolship.tools.junit import write_junit
from smolship.tools.measure import bench_of, parity_of


def slower(now: BenchReport, before: BenchReport, share: float) -> list[str]:
    """Where even the best repeat is below that share of the baseline's median: noise alone is no failure."""
    pairs = [(depth, now.decode_tokens_per_s[depth].high, s.median) for depth, s in before.decode_tokens_per_s.items()]
    return [f"decode after {at}: {new:,.0f} tokens/s, was {old:,.0f}" for at, new, old in pairs if new < share * old]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--baseline", type=Path, required=True)
    parser.add_argument("--junit", type=Path)
    parser.add_argument("--max-kl", type=float, help="from the original to the engine, in nats")
    parser.add_argument("--share", type=float, default=0.8, help="of the baseline's speed that is still good")
    given = parser.parse_args()

    bundle, threads = open_bundle(given.bundle), default_threads()
    bundle.verify()
    targets = list(bundle.manifest.targets)
    reports = parity_of(bundle, targets, lambda *step: None, quick=True, threads=threads, max_kl=given.max_kl)
    if given.junit:
        write_junit(given.junit, reports)
    failed = [f"{report.target}: {check.what}" for report in reports for check in report.checks if not check.passed]

    speeds = dict(zip(targets, bench_of(bundle, targets, lambda *step: None, threads=threads, repeats=3), strict=True))
    if not given.baseline.exists():
        given.baseline.write_text(json.dumps({name: report.to_dict() for name, report in speeds.items()}))
    for name, raw in json.loads(given.baseline.read_text()).items():
        found = slower(speeds[name], BenchReport.from_dict(raw), given.share) if name in speeds else ["not exported"]
        failed += [f"{name}: {line}" for line in found]
    print(*failed or ["every gate passed"], sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SmolshipError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
