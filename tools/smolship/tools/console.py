"""How each of our commands begins and ends: standard streams that take every text, and exit codes.

Characters that it does not hold are spelled with those that every console holds; what has no spelling, such as a
model's answer in another script, is escaped (\\u4f60). Box characters are rich's own duty.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer
from rich.console import Console

from smolship.runtime.disk import disk_errors
from smolship.runtime.errors import InputError
from smolship.runtime.faults import as_ours
from smolship.runtime.process import forget_working_folder, wait_briefly
from smolship.tools.failures import Failure, asks_json

SPELLED = {
    "–": "-",
    "—": "-",
    "‑": "-",
    "−": "-",
    "→": "->",
    "←": "<-",
    "±": "+-",
    "×": "x",
    "≈": "~",
    "≤": "<=",
    "≥": ">=",
    "∞": "inf",
    "…": "...",
    "✓": "=",
    "✗": "!",
    "•": "*",
    "·": "*",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "µ": "u",
    "²": "^2",
    "°": " degrees",
    "█": "#",
    "\u00a0": " ",
    "\u202f": " ",
    "\u2009": " ",
}
HANDLER = "smolship.spelled"
INTERRUPTED = 130
WIDE = 120
UsageError: Any = typer.BadParameter.__base__  # typer carries a click of its own, and does not export this one


def _spell(error: UnicodeError) -> tuple[str, int]:
    """The error handler: characters that an encoding does not hold, spelled."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    escape = codecs.lookup_error("backslashreplace")
    pieces = []
    for i in range(error.start, error.end):
        character = error.object[i]
        spelled = SPELLED.get(character) or escape(UnicodeEncodeError("ascii", character, 0, 1, ""))[0]
        pieces.append(str(spelled))
    return "".join(pieces), error.end


codecs.register_error(HANDLER, _spell)


class Screen(Console):
    """rich's console, but for a reader that has gone: rich would end the process with 1. Files and pipes have no width:
    tables get what they need there, up to `WIDE` columns."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = WIDE

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def begin() -> None:
    """What every command does first: nothing is imported from the working folder, threads that wait for long sleep,
    streams take every text."""
    forget_working_folder()
    wait_briefly()
    settle_streams()


def settle_streams() -> None:
    """Let standard output and error take every text, and nothing on standard input pass for text that is none."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=HANDLER)
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="strict")


def run_command(main: Callable[..., object], arguments: list[str] | None, screen: Console) -> int:
    """The exit code of a program of one command, `main`, for a command line; None: this process'."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    return exit_code(lambda: int(app(arguments, standalone_mode=False) or 0), screen, asks_json(arguments))


def exit_code(command: Callable[[], int], screen: Console, as_json: bool = False) -> int:
    """What `command` returns, or the code of what it raises, which is told on `screen`, and `as_json` on standard
    output, too. Never a traceback."""
    try:
        with disk_errors():
            code = command()
            if code == INTERRUPTED:  # typer's answer to Ctrl-C
                raise KeyboardInterrupt
            if sys.stdout:
                sys.stdout.flush()  # a full disk shows here, and not when Python ends
            return code
    except UsageError as error:
        error.show()
        failure = Failure.plain("usage", 2, error.format_message())
    except KeyboardInterrupt:
        failure = Failure.plain("interrupted", INTERRUPTED, "interrupted")
        _tell(screen, failure)
    except BrokenPipeError:
        return _nobody_reads()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # typer's own answer to it is 1
            return _nobody_reads()
        if error.code == 2:  # argparse's answer, which it has shown
            failure = Failure.plain("usage", 2, "the command line cannot be used; standard error says why")
        elif isinstance(error.code, int) and error.code > 128:
            failure = Failure.plain("interrupted", error.code, "terminated by a signal")
        else:
            raise
    except Exception as error:
        if isinstance(error, typer.Abort) and isinstance(error.__cause__, Exception):  # an EOFError, which typer hides
            error = error.__cause__
        failure = Failure.of(as_ours(error))
        _tell(screen, failure)
    if as_json:
        try:
            failure.print_json()
        except OSError:
            _nobody_reads()
    return failure.exit_code


def _tell(screen: Console, failure: Failure) -> None:
    with contextlib.suppress(BrokenPipeError):
        screen.print("[bold red]smolship:[/]", end=" ")
        screen.print(failure.message, markup=False, highlight=False, soft_wrap=True)


def _nobody_reads() -> int:
    """The reader of our output has gone (`| head`). What is left in the buffer must not raise at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def read_stdin(what: str) -> str:
    """All of standard input, which is UTF-8 whatever the console's encoding: it comes from a file or a program."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
    try:
        return sys.stdin.read() if sys.stdin else ""
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is not UTF-8", got=error, expected="UTF-8 text on standard input") from None


def argument_text(text: str, what: str) -> str:
    """A text out of the command line. Where the console's encoding did not hold its bytes, they are read as UTF-8."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        pass
    try:
        return os.fsencode(text).decode()
    except UnicodeError as error:
        raise InputError(f"{what} is not UTF-8", got=error, expected="UTF-8 text") from None
