"""An answer that is generated on a device: ids go there and come back, texts are made of them here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from smolship.runtime.bundle import Bundle, default_threads
from smolship.runtime.child import Listener
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.execute import Execute
from smolship.runtime.generate import Generated, Sampling
from smolship.runtime.plan import MOST, Answer, Plan, Text
from smolship.tools.devices.opening import executing
from smolship.tools.devices.uri import parse
from smolship.tools.measure import Update


@dataclass
class Heard(Listener):
    """The answer so far, as the runner tells it; each token goes on to `push`."""

    device: str
    plan: Plan
    vocab: int
    push: Callable[[int], None]
    found: Generated = field(init=False)

    def __post_init__(self) -> None:
        self.found = Generated(len(self.plan.texts[0].ids))

    def tokens(self, ids: Sequence[int]) -> None:
        assert self.plan.answer
        if max(ids, default=0) >= self.vocab or len(self.found.ids) + len(ids) > self.plan.answer.max_tokens:
            raise SetupError(
                f"{self.device}: the runner tells tokens that no answer has",
                got=f"{list(ids)[:5]} after {len(self.found.ids):,}",
                expected=f"at most {self.plan.answer.max_tokens:,} tokens, each below {self.vocab:,}",
                todo="run the command again",
            )
        for one in ids:
            self.found.ids.append(one)
            self.push(one)


@dataclass
class Asked:
    """A question that a device is ready to answer."""

    heard: Heard
    execute: Execute

    @property
    def found(self) -> Generated:
        """What came so far; its times and the reason for its end come last."""
        return self.heard.found

    def run(self) -> None:
        """Raises SmolshipError as Job.execute does; SetupError where what was told is not the answer."""
        told, result = self.heard.found, self.execute(self.heard.plan, self.heard)
        assert result.generated
        if told.ids != result.generated.ids:
            raise SetupError(
                f"{self.heard.device}: what was shown is not the answer: lines were lost on the way",
                got=f"{len(told.ids):,} tokens",
                expected=f"{len(result.generated.ids):,} tokens",
                todo="run the command again",
            )
        told.end, told.stop_id, told.times = result.generated.end, result.generated.stop_id, result.generated.times


@dataclass(frozen=True)
class Question:
    """What is asked of a target: the prompt's ids, and how it is to be answered. `threads`: None: the device's own."""

    target: str
    ids: Sequence[int]
    max_tokens: int
    sampling: Sampling
    threads: int | None = None


@contextmanager
def asking(
    device: str,
    bundle: Bundle,
    question: Question,
    push: Callable[[int], None],
    update: Update,
    *,
    limit_s: float | None = None,
    force: bool = False,
) -> Iterator[Asked]:
    """Send what answers a question on a device; `push` will get each token as it is chosen there. `limit_s` and `force`
    as `executing` has them.

    Raises InputError, before anything is sent, for what the device's runner could not do.
    """
    parse(device)
    target = question.target
    check(bundle, target, device, question.ids, question.sampling)
    bundle.verify(bundle.entry(target).folder + "/")
    there = executing(device, bundle, [target], update, threads=question.threads, limit_s=limit_s, force=force)
    with there as place:
        threads = question.threads or place.threads or default_threads()
        plan = plan_of(bundle, target, question.ids, question.max_tokens, question.sampling, threads)
        yield Asked(Heard(device, plan, bundle.manifest.model.vocab, push), place.sensed(target).execute)


def plan_of(bundle: Bundle, target: str, ids: Sequence[int], max_tokens: int, sampling: Sampling, threads: int) -> Plan:
    """A plan of one answer. More tokens than the context holds, and one, are never asked for."""
    entry = bundle.entry(target)
    answer = Answer(min(max_tokens, bundle.manifest.context + 1, MOST), np.array(bundle.stop_ids, np.int32), sampling)
    return Plan(
        "generate", target, entry.engine, entry.info, threads, texts=(Text.plain(np.array(ids)),), answer=answer
    )


def check(bundle: Bundle, target: str, device: str, ids: Sequence[int], sampling: Sampling) -> None:
    """Raise InputError for a prompt that does not fit, and for sampling without Python."""
    context = bundle.manifest.context
    if len(ids) > context:
        raise InputError(
            "the prompt is longer than the context",
            got=f"{len(ids):,} tokens",
            expected=f"at most {context:,}",
            todo="shorten it, or export with a larger --context",
        )
    native = bundle.entry(target).engine == "executorch"
    if native and (sampling.temperature != 0 or sampling.repetition_penalty != 1):
        raise InputError(
            f"{device}: {target} is executed there without Python, which chooses the likeliest token alone",
            got=f"a temperature of {sampling.temperature:g}, a repetition penalty of {sampling.repetition_penalty:g}",
            expected="--temperature 0 --repetition-penalty 1",
            todo="give these two, or take a target that Python executes there: onnx or gguf",
        )
