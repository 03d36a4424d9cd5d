"""statistics.json: what is told of raw times, each case of one of these kinds.

quantiles  of `values`: p50, p95 and p99, linear between the two nearest, as numpy.quantile has them
spread     of `values`: median, low, high and repeats
agree      whether the last two of `values` lie within 5 % of one another: warm enough
decode     of `gaps_ms`, milliseconds between tokens, a row a repeat: tokens_per_s of each repeat
prefill    of `ttft_ms`, a value a repeat, and the `prompt`'s tokens: tokens_per_s of each repeat
answer     of `times`, seconds from the start until each token was known: ttft_s, decode_tokens_per_s; null: too few

Sums and means may be made in another order: 1e-12 of a value is no difference.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from smolship.runtime.bench import Spread
from smolship.runtime.generate import Generated
from smolship.runtime.result import Times
from smolship.runtime.timing import agree

VALUES = {
    "one": [3.25],
    "two": [1.0, 2.0],
    "equal": [7.5] * 5,
    "odd": [5.0, 1.0, 4.0, 2.0, 3.0],
    "even": [10.0, 40.0, 20.0, 30.0],
    "with an outlier": [10.5, 10.25, 10.75, 10.5, 99.0],
    "twenty": [float(i * 37 % 20) / 4 for i in range(20)],
    "a hundred": [float(i * 61 % 101) / 8 for i in range(100)],
    "small": [1e-6, 2e-6, 4e-6],
}
AGREEING = {
    "none": [],
    "one": [100.0],
    "two equal": [100.0, 100.0],
    "5 %": [100.0, 105.0],
    "5 % the other way": [105.0, 100.0],
    "more than 5 %": [100.0, 105.5],
    "the last two alone": [500.0, 100.0, 101.0],
    "not yet": [100.0, 101.0, 90.0],
}
GAPS = {"steady": [[2.0] * 4, [2.5] * 4], "uneven": [[1.0, 3.0, 2.0], [4.0], [0.125, 0.375]]}
TTFT = {"128 tokens": (128, [64.0, 50.0, 51.5]), "one token": (1, [0.25])}
ANSWERS = {"none": [], "one": [0.5], "two": [0.5, 0.75], "five": [1.0, 1.25, 1.5, 1.75, 2.5]}
Case = dict[str, Any]


def cases() -> list[Case]:
    found = []
    for name, values in VALUES.items():
        quantiles = {f"p{q}": float(np.quantile(values, q / 100)) for q in (50, 95, 99)}
        found.append({"name": f"quantiles: {name}", "kind": "quantiles", "values": values} | quantiles)
        found.append({"name": f"spread: {name}", "kind": "spread", "values": values} | asdict(Spread.of(values)))
    for name, values in AGREEING.items():
        found.append({"name": f"agree: {name}", "kind": "agree", "values": values, "agree": agree(values)})
    for name, gaps in GAPS.items():
        speeds = Times({}, {1: gaps}).decode_tokens_per_s(1)
        found.append({"name": f"decode: {name}", "kind": "decode", "gaps_ms": gaps, "tokens_per_s": speeds})
    for name, (prompt, times) in TTFT.items():
        speeds = [1000 * prompt / ms for ms in times]
        head = {"name": f"prefill: {name}", "kind": "prefill", "prompt": prompt, "ttft_ms": times}
        found.append(head | {"tokens_per_s": speeds})
    for name, times in ANSWERS.items():
        generated = Generated(1, times=times)
        told = {"ttft_s": generated.ttft_s, "decode_tokens_per_s": generated.decode_tokens_per_s}
        found.append({"name": f"answer: {name}", "kind": "answer", "times": times} | told)
    return found
