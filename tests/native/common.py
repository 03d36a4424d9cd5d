"""Plans for a tiny program, and the runner as its caller sees it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from smolship.runtime.plan import Call, Plan, Text
from smolship.runtime.records import to_json

IDS = np.random.default_rng(4).integers(0, 300, 60).astype(np.int32)
WANTED = np.random.default_rng(5).integers(0, 300, (60, 6)).astype(np.int32)
TEXT = Text(IDS, np.arange(60, dtype=np.int32), WANTED)


def plan_of(*calls: Call, **more: Any) -> Plan:
    return Plan("parity", "executorch", "executorch", {"file": "model.pte"}, 1, texts=(TEXT,), calls=calls, **more)


def run(program: Path, plan: bytes | Plan, folder: Path, work: Path, *before: str) -> tuple[int, Any]:
    """The status, and what the last line says."""
    (work / "plan.json").write_bytes(to_json(plan) if isinstance(plan, Plan) else plan)
    (work / "result.json").unlink(missing_ok=True)
    line = [*before, str(program), str(work / "plan.json"), str(work / "result.json"), str(folder)]
    done = subprocess.run(line, capture_output=True, timeout=300)
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else done.stderr[-500:]
