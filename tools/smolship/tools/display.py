"""What a person sees while something runs, and when it has ended: progress bars, and why an answer ended."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from smolship.runtime.bundle import Bundle
from smolship.runtime.errors import clip
from smolship.runtime.generate import Generated

LONGEST = 200  # characters of what is said beside a bar


class Steps:
    """A progress bar for each step; `update` as (step, what is being done, done, total)."""

    def __init__(self, console: Console):
        self.progress = Progress(
            TextColumn("{task.description:<18}", markup=False),  # of a bundle, and of a device
            BarColumn(30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[what]}", style="dim", markup=False),
            console=console,
        )
        self.tasks: dict[str, TaskID] = {}

    def update(self, step: str, what: str, done: int, total: int) -> None:
        step, what = clip(step, LONGEST), clip(what, LONGEST)
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


def generation_line(generation: Generated, bundle: Bundle) -> str:
    """Why a generation ended and how long it took, in a line of rich markup."""
    speed, first = generation.decode_tokens_per_s, generation.ttft_s
    return escape(
        f"[{why_ended(generation, bundle)}; {generation.prompt_tokens} + {len(generation.ids)} tokens"
        + (f", first after {first * 1000:.0f} ms" if first is not None else "")
        + (f", then {speed:.0f} tokens/s" if speed is not None else "")
        + "]"
    )


def why_ended(generation: Generated, bundle: Bundle) -> str:
    """The reason for the end of a generation, in words."""
    if generation.end == "stop":
        ends = {end.id: end.text for end in bundle.manifest.generation.ends}
        return f"ended by the end token {generation.stop_id} {clip(ends.get(generation.stop_id or 0, ''), 60)}".rstrip()
    return {
        "max_tokens": "ended by the token limit, --max-tokens",
        "context": f"ended by a full context, {bundle.manifest.context:,} tokens",
        "interrupted": "interrupted",
    }[generation.end]
