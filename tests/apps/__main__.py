"""Writes tests/vectors/apps: `PYTHONPATH=export:runtime:tools:. python -P -m tests.apps [NAME …]`."""

from __future__ import annotations

import sys

from tests.apps.vectors import FOLDER, MAKERS, text

if __name__ == "__main__":
    for name in sys.argv[1:] or MAKERS:
        path = FOLDER / f"{name}.json"
        path.write_text(text(MAKERS[name]()), encoding="utf-8")
        print(f"{path.relative_to(FOLDER.parents[2])}: {path.stat().st_size:,} bytes")
