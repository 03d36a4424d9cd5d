"""The vectors that both demo apps are tested against: what the Python code gives, one file a subject."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.apps import chat, manifest, plan, sampling, statistics, stops, stream, templates

FOLDER = Path(__file__).parents[1] / "vectors" / "apps"
Case = dict[str, Any]
MAKERS: dict[str, Callable[[], list[Case]]] = {
    "templates": templates.cases,
    "sampling": sampling.cases,
    "stream": stream.cases,
    "stops": stops.cases,
    "chat": chat.cases,
    "manifest": manifest.cases,
    "plan": plan.cases,
    "statistics": statistics.cases,
}


def text(cases: list[Case]) -> str:
    """The file: an array with a case a line."""
    lines = (json.dumps(case, ensure_ascii=False, separators=(",", ":"), allow_nan=False) for case in cases)
    return "[\n" + ",\n".join(lines) + "\n]\n"
