"""What a person sees while something runs: progress bars, and the chat."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from smolship.runtime.bundle import Bundle
from smolship.runtime.chat import Chat
from smolship.runtime.errors import InputError
from smolship.runtime.generate import Generation, Sampling
from smolship.runtime.session import Session


class Steps:
    """A progress bar for each step; `update` as (step, what is being done, done, total)."""

    def __init__(self, console: Console):
        self.progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[what]}"),
            console=console,
        )
        self.tasks: dict[str, TaskID] = {}

    def update(self, step: str, what: str, done: int, total: int) -> None:
        if step not in self.tasks:
            self._finish()
            self.tasks[step] = self.progress.add_task(step, total=total, what=what)
        self.progress.update(self.tasks[step], completed=done, total=max(total, 1), what=what)

    def _finish(self) -> None:
        for task in self.progress.tasks:
            if not task.finished:
                self.progress.update(task.id, completed=task.total, what="")

    def __enter__(self) -> Steps:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._finish()
        self.progress.stop()


def generation_line(generation: Generation) -> str:
    """How long a generation took and why it ended, in a line of rich markup."""
    speed, first = generation.decode_tokens_per_s, generation.ttft_s
    return (
        f"[{generation.prompt_tokens} + {len(generation.ids)} tokens, ended by {generation.end}"
        + (f", first after {first * 1000:.0f} ms" if first is not None else "")
        + (f", then {speed:.0f} tokens/s" if speed is not None else "")
        + "]"
    ).replace("[", r"\[", 1)


def talk(
    bundle: Bundle, session: Session, sampling: Sampling, system: str | None, max_tokens: int, console: Console
) -> None:
    """Read a line, answer it, until Ctrl-D. Ctrl-C ends the answer and keeps what was said."""
    chat = Chat(session, bundle.tokenizer, bundle.template, bundle.stop_ids, sampling, system=system)
    console.print("Ctrl-C stops an answer, Ctrl-D ends the chat.", style="dim")
    while True:
        try:
            text = input("> ")
        except EOFError:
            print()
            return
        except UnicodeDecodeError as error:
            raise InputError("what was typed is no text", got=error, expected=f"{error.encoding} text") from None
        if not text.strip():
            continue
        try:
            for piece in chat.ask(text, max_tokens=max_tokens):
                print(piece, end="", flush=True)
            print()
        except KeyboardInterrupt:
            print()
        except InputError as error:
            console.print(str(error), style="red", markup=False)
            continue
        console.print(
            f"[{session.position:,} of {session.capacity:,} tokens, {chat.reused:,} reused]", style="dim", markup=False
        )
