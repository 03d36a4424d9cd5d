"""Several commands in one process that is not this one: it imports all they need once. Their children are theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from smolship.runtime.process import roots

# Begins as the script that pip writes into bin/.
DRIVER = """
import io, json, sys
from smolship.tools.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.stdin = io.StringIO("hi\\n")
    try:
        main(arguments)
    except SystemExit as error:
        sys.stdout.flush()
        print("exit code", error.code, file=sys.stderr)
"""


def environ(**changes: str) -> dict[str, str]:
    """A user's environment, in which this source tree is found."""
    return {**os.environ, "PYTHONPATH": roots(), "HF_HUB_OFFLINE": "1", **changes}


def run_commands(
    commands: Sequence[Sequence[str]], cwd: Path, script: Path, **changes: str
) -> tuple[list[int], bytes, bytes]:
    """Exit codes, standard output and error of commands run one after the other in `cwd`, from a file `script`."""
    script.write_text(DRIVER)
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(commands)], cwd=cwd, env=environ(**changes), capture_output=True
    )
    said = done.stderr.splitlines()
    codes = [int(line.split()[-1]) for line in said if line.startswith(b"exit code ")]
    return codes, done.stdout, done.stderr
