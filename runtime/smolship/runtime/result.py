"""A result: what executing a plan gave, and who ran it. It travels as a file (records.py), and is read as untrusted
input: `answers` holds it against the plan that it says it is of.

    plan, artifact       SHA-256 of the plan; of the artifact, as artifact.digest has it
    purpose … threads    the plan's own
    traits               of the session
    seen                 a sketch for each of the plan's calls, in order
    cache                keys and values of each layer, float32 [2, tokens, kv heads, head size]; none where the engine
                         does not show them
    nonfinite            infinities and NaNs on the way, each with its operator
    loads, times         raw, in milliseconds
    generated            where the plan asks for an answer
    strings              where the plan has some: what the engine's tokenizer makes of each
    memory_before_load   of the process before the artifact was opened, and at the end; null where the process was not
    memory               the plan's alone
    waiting              how its threads wait for one another
    versions             of Python, numpy, smolship and what the engine imports
    system, cpu          of the machine
    seconds              of the whole execution
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from smolship.runtime.disk import writing
from smolship.runtime.errors import InputError, show
from smolship.runtime.generate import Generated
from smolship.runtime.memory import Memory
from smolship.runtime.plan import Plan, Purpose
from smolship.runtime.probes import log_sum_exp
from smolship.runtime.process import Waiting
from smolship.runtime.records import LATER, Blocks, Doubles, Ids, Numbers, Rows, read_file, to_json
from smolship.runtime.session import Traits

SCHEMA = 1
MOST_MS = 1e10  # of one time: four months
SLACK = 1e-6  # of a log-sum-exp: sums of float64 in another order differ by far less


@dataclass(eq=False)
class Seen:
    """A sketch of the logits at N positions."""

    lse: Doubles  # [N], log-sum-exp of all logits
    best: Ids  # [N], the largest logit's token
    peak: Numbers  # [N], and that logit
    at: Rows  # [N, K], the logits at the ids that were wanted
    digests: list[str]  # SHA-256 of each position's logits, where the call was exact

    @staticmethod
    def of(logits: np.ndarray, wanted: np.ndarray, exact: bool = False) -> Seen:
        """Of float32 logits [N, V], with those at the ids `wanted` [N, K]."""
        best = logits.argmax(1) if len(logits) else np.empty(0, np.int64)
        return Seen(
            lse=log_sum_exp(logits),
            best=best.astype(np.int32),
            peak=logits[np.arange(len(logits)), best],
            at=np.take_along_axis(logits, wanted, axis=1),
            digests=[_digest(row) for row in logits] if exact else [],
        )

    def possible(self, wanted: np.ndarray, vocab: int) -> bool:
        """Whether some logits have this sketch, at the ids `wanted` [N, K]: none lies above the peak, which is that of
        the largest one's token, and the sum of all exponentials is no less than that of those that are known. A sum
        that is too small would make every divergence 0. What is not finite throughout is left to the judgement."""
        with np.errstate(all="ignore"):
            above, over = self.at.astype(np.float64) - self.peak[:, None], self.lse - self.peak
            known = np.exp(np.where(_first_ones(wanted), above, -np.inf)).sum(1)
            slack = SLACK * (1 + np.abs(self.peak))
            wrong = (above > 0).any(1) | ((wanted == self.best[:, None]) & (above < 0)).any(1)
            wrong |= (over < np.log(np.maximum(known, 1)) - slack) | (over > np.log(vocab) + slack)
        finite = np.isfinite(self.peak)
        return not np.where(finite, wrong, np.isfinite(self.lse)).any()

    def __getitem__(self, rows: slice) -> Seen:
        return Seen(self.lse[rows], self.best[rows], self.peak[rows], self.at[rows], self.digests[rows])

    @staticmethod
    def join(parts: list[Seen]) -> Seen:
        if len(parts) == 1:
            return parts[0]
        return Seen(
            np.concatenate([part.lse for part in parts]),
            np.concatenate([part.best for part in parts]),
            np.concatenate([part.peak for part in parts]),
            np.concatenate([part.at for part in parts]),
            [digest for part in parts for digest in part.digests],
        )


def _first_ones(ids: np.ndarray) -> np.ndarray:
    """Where an id of [N, K] stands for the first time in its row, bool [N, K]."""
    order = np.argsort(ids, axis=1, kind="stable")
    ordered = np.take_along_axis(ids, order, axis=1)
    first = np.ones(ids.shape, bool)
    np.put_along_axis(first, order[:, 1:], ordered[:, 1:] != ordered[:, :-1], axis=1)
    return first


def _digest(row: np.ndarray) -> str:
    """SHA-256 of logits [V], in which a NaN equals any other and 0 equals -0."""
    return hashlib.sha256(np.where(np.isnan(row), np.float32("nan"), row + np.float32(0)).tobytes()).hexdigest()


@dataclass(eq=False)
class Tokens:
    """What a tokenizer makes of a string.

    bare    its ids with nothing put around them, and
    around  with what the model wants around a text; null where the tokenizer cannot do one of them, or refuses the
            string
    text    the first of them that there is as text again
    """

    bare: Ids | None
    around: Ids | None
    text: str | None


@dataclass(frozen=True)
class Loads:
    """import   of the engine's packages
    cold, warm  opening the artifact and running one token, its pages dropped from the system's cache first; and again
    dropped     whether the system did forget them; None: it does not say
    """

    import_ms: float
    cold_ms: float
    warm_ms: float
    dropped: bool | None


@dataclass(frozen=True)
class Times:
    """Raw times, a value or a row a repeat.

    ttft_ms     by the prompt's length: from its first token to the choice of the first of the answer
    gaps_ms     by depth of the cache: between one token and the next
    warmups_ms  of the repetitions before all that
    sustained   of decoding on and on: pairs of the seconds since its start and tokens/s since the pair before
    """

    ttft_ms: dict[int, list[float]]
    gaps_ms: dict[int, list[list[float]]]
    warmups_ms: list[float] = field(default_factory=list)
    sustained: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = [*self.ttft_ms.values(), *(row for rows in self.gaps_ms.values() for row in rows), self.warmups_ms]
        if any(ms > MOST_MS for row in rows for ms in row) or any(len(pair) != 2 for pair in self.sustained):
            raise InputError("times that no clock gives", got=show(self), expected=f"below {MOST_MS:,.0f} ms")

    def decode_tokens_per_s(self, depth: int) -> list[float]:
        """Of each repeat: over the mean time between tokens."""
        return [1000 / float(np.mean(gaps)) for gaps in self.gaps_ms[depth]]


@dataclass
class Result:
    """See the module."""

    plan: str
    artifact: str
    purpose: Purpose
    target: str
    engine: str
    arithmetic: str
    threads: int
    traits: Traits
    waiting: Waiting
    versions: dict[str, str]
    system: str
    cpu: str | None
    seconds: float
    seen: list[Seen] = field(default_factory=list)
    cache: list[Blocks] = field(default_factory=list)
    nonfinite: list[str] = field(default_factory=list)
    loads: Loads | None = None
    times: Times | None = None
    generated: Generated | None = field(default=None, metadata=LATER)
    strings: list[Tokens] | None = field(default=None, metadata=LATER)
    memory_before_load: Memory | None = None
    memory: Memory | None = None
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise InputError("a result of another version", got=self.schema, expected=SCHEMA)
        if min(self.traits.vocab, self.traits.capacity, self.traits.chunk or 1, self.threads) < 1:
            raise InputError("a result with traits that no session has", got=self.traits)
        loads = (self.loads.import_ms, self.loads.cold_ms, self.loads.warm_ms) if self.loads else ()
        if min((self.seconds, *loads)) < 0:
            raise InputError("a result with times that no clock gives", got=f"{self.seconds} s, {self.loads}")

    def save(self, path: Path) -> None:
        """Write it to a temporary file beside `path`, and rename that."""
        raw, temporary = to_json(self), path.with_name(f".{path.name}.partial")
        with writing(path, len(raw)):
            temporary.write_bytes(raw)
            temporary.replace(path)

    @staticmethod
    def load(path: Path) -> Result:
        return read_file(Result, path, "result")

    def answers(self, plan: Plan) -> None:
        """Raise InputError unless this is a result of that plan, with an answer to all that it asks."""
        if self.plan != plan.digest:
            raise InputError(
                "the result is of another plan",
                got=self.plan,
                expected=plan.digest,
                todo="execute a plan of this bundle, made by this version of smolship",
            )
        wrong = [f"{len(self.seen)} answers to {len(plan.calls)} calls"] * (len(self.seen) != len(plan.calls))
        for i, (call, seen) in enumerate(zip(plan.calls, self.seen, strict=False)):
            rows = plan.texts[call.text].rows(call.looked.start, call.looked.stop)
            sizes = {len(seen.lse), len(seen.best), len(seen.peak), len(seen.at), len(rows)}
            exact = len(rows) if call.exact else 0
            known = ((seen.best >= 0) & (seen.best < self.traits.vocab)).all()
            if len(sizes) > 1 or seen.at.shape[1] != rows.shape[1] or len(seen.digests) != exact or not known:
                wrong.append(f"the answer to call {i}")
            elif not seen.possible(rows, self.traits.vocab):
                wrong.append(f"the answer to call {i}, which no logits give")
        if len(self.cache) not in (0, plan.layers):
            wrong.append(f"{len(self.cache)} of {plan.layers} layers")
        if plan.loads != (self.loads is not None) or (plan.timing is None) != (self.times is None):
            wrong.append("the times")
        if plan.timing and self.times:
            ttft, gaps, repeats = self.times.ttft_ms, self.times.gaps_ms, plan.timing.repeats
            if set(ttft) != set(plan.timing.prompts) or set(gaps) != set(plan.timing.depths):
                wrong.append("the times")
            counts = [len(times) for times in ttft.values()] + [len(rows) for rows in gaps.values()]
            if set(counts) != {repeats} or not all(row for rows in gaps.values() for row in rows):
                wrong.append("the repeats")
            if len(self.times.warmups_ms) > plan.timing.warmups:
                wrong.append("the warm-ups")
            pairs = self.times.sustained
            if bool(pairs) != bool(plan.timing.sustained) or not all(len(one) == 2 and min(one) > 0 for one in pairs):
                wrong.append("the sustained decoding")
        if (plan.strings is None) != (self.strings is None) or len(plan.strings or ()) != len(self.strings or ()):
            wrong.append("the strings")
        if not self._generates(plan):
            wrong.append("what was generated")
        if wrong:
            raise InputError("the result does not answer its plan", got=", ".join(wrong[:5]))

    def _generates(self, plan: Plan) -> bool:
        """Whether what was generated is an answer that the plan asks for."""
        found, asked = self.generated, plan.answer
        if found is None or asked is None:
            return found is asked
        stopped = found.end == "stop"
        return (
            found.prompt_tokens == len(plan.texts[0].ids)
            and found.end != "interrupted"
            and (found.stop_id in asked.stop_ids.tolist() if stopped else found.stop_id is None)
            and len(found.ids) <= asked.max_tokens - stopped
            and (found.end == "max_tokens") == (len(found.ids) == asked.max_tokens)
            and all(0 <= one < self.traits.vocab for one in found.ids)
            and len(found.times) == len(found.ids) + stopped
            and all(a <= b for a, b in zip([0.0, *found.times], found.times, strict=False))
        )
