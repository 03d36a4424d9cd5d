"""Figures as text: 3 significant digits, a unit, and never a 0 for what was not measured.

Values may come from an untrusted manifest, so anything is accepted: what is no number is shown as clipped text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from smolship.runtime.errors import clip
from smolship.runtime.manifest import Manifest
from smolship.runtime.parity import Check
from smolship.runtime.template import PROGRAM

UNAVAILABLE = "unavailable"
Z95 = 1.96  # a mean lies within this many standard errors, 95 times in 100


def number(value: Any, unit: str = "", digits: int = 3) -> str:
    """`value` in `digits` significant digits; whole ones are counts and keep all of theirs."""
    if value is None:
        return UNAVAILABLE
    if not _real(value):
        return clip(value, 120)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    magnitude = abs(value)
    if magnitude >= 1e15 or 0 < magnitude < 1e-3:
        text = f"{value:.{digits - 1}e}"
    elif isinstance(value, int) or value == 0 or magnitude >= 10**digits - 0.5:
        text = f"{value:,.0f}"
    else:
        text = f"{value:#.{digits}g}".rstrip(".")
    return f"{text} {unit}" if unit else text


def size(value: Any) -> str:
    """Bytes, in powers of 1000."""
    if not _real(value) or not math.isfinite(value):
        return number(value)
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return number(value / scale, unit)
    return f"{value:,.0f} B"


def share(value: Any) -> str:
    """A share of 1 in percent. Rounded down: 100 % means all of them."""
    if not _real(value) or not math.isfinite(value):
        return number(value)
    return f"{math.floor(value * 1e4 + 1e-6) / 100:.2f} %"


def _real(value: Any) -> bool:
    """Whether it is a number that fits a float: integers in JSON have no end."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 10**300
    return isinstance(value, float)


def decimals(value: float | None, digits: int) -> str:
    """For what lies near 1, where the digits after the nines are what counts."""
    return number(value) if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def interval(check: Check) -> str:
    """Mean KL with its 95 % interval."""
    if not check.positions:
        return UNAVAILABLE
    if check.exact:
        return "none"
    if check.positions == 1 and math.isfinite(check.kl):
        return number(check.kl)
    return f"{number(check.kl)} ± {number(Z95 * check.error, digits=2)}"


def verdict(check: Check) -> str:
    """What the check says: a gap without a bound is told, not judged."""
    if not check.positions:
        return UNAVAILABLE
    return "FAIL" if not check.passed else "ok" if check.exact or check.bound is not None else "reported"


def limit(value: float | None) -> str:
    """A floor or a bound; None means that the check has none, not that it could not be measured."""
    return "none" if value is None else number(value)


def quantization(manifest: Manifest) -> str:
    """The scheme in words, such as "int4, groups of 32, embedding 8 bits"."""
    scheme = manifest.quantization
    parts = [clip(scheme.name, 40)]
    if scheme.linear == 4:
        parts.append(f"groups of {number(scheme.group)}")
    parts.append(f"embedding {number(scheme.embedding)} bits")
    if scheme.lifted:
        parts.append(f"{number(scheme.lifted)} matrices as the GGUF file holds them")
    return ", ".join(parts)


def calibration(manifest: Manifest) -> str | None:
    """On what the weights were calibrated, how, and what came of it; None where they were not."""
    facts = manifest.quantization.calibration
    if facts is None:
        return None
    text = "text that the model wrote" if facts.sha256 is None else f"a text, SHA-256 {clip(facts.sha256, 16)}"
    parts = [
        f"{number(facts.tokens)} tokens of {text}, seed {number(facts.seed)}",
        f"effort {clip(facts.effort, 20)}: {clip(facts.method, 120)}, {number(facts.steps)} steps",
        f"KL on tokens kept aside {decimals(facts.kl_before, 3)}, then {decimals(facts.kl_after, 3)}",
    ]
    if facts.lifted:
        parts.append(f"{number(facts.lifted)} linears stay as the file holds them")
    return "\n".join([*parts, *(clip(note) for note in facts.notes)])


def end_tokens(manifest: Manifest) -> list[str]:
    """Each token that ends an answer, and what names it."""
    return [
        f"{number(end.id)} {clip(end.text, 60) or '(no text)'}, from {clip(', '.join(end.origins), 200)}"
        for end in manifest.generation.ends
    ]


def bos_token(manifest: Manifest) -> str:
    """Its id, and whether the tokenizer puts it in front of a raw text."""
    facts = manifest.generation
    which = "none" if facts.bos is None else number(facts.bos)
    return f"{which}, {'' if facts.adds_bos else 'not '}put in front of text"


def chat_template(manifest: Manifest) -> str:
    """Where it comes from, and whether apps can render it, which have no jinja."""
    origin = manifest.generation.template
    if origin is None:
        return "none"
    return f"from {clip(origin)}; apps " + (
        "render it" if PROGRAM in manifest.files else f"cannot render it: no {PROGRAM}"
    )


def sampling(manifest: Manifest) -> str:
    """What the makers recommend, in words, such as "temperature 0.6, top_k 50, top_p 0.95"; after "greedy", what holds
    for whoever asks for a temperature."""
    said = manifest.generation.sampling
    none = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
    penalty = [f"repetition_penalty {said.repetition_penalty:g}"] if said.repetition_penalty != 1 else []
    kept = [f"{key} {getattr(said, key):g}" for key in none if getattr(said, key) != none[key]]
    if said.do_sample:
        return ", ".join([f"temperature {said.temperature:g}", *kept, *penalty])
    return ", ".join(["greedy", *penalty]) + (f"; with a temperature: {', '.join(kept)}" if kept else "")


def notes(manifest: Manifest) -> list[str]:
    """What the export had to say, one line each."""
    return [clip(note) for note in manifest.quantization.notes]


def steps(manifest: Manifest) -> list[tuple[str, str, str]]:
    """(name, time, peak memory) of each step of the export, and of its parts the time; where a step was of another run,
    this is said behind."""
    found = []
    for name, cost in manifest.steps.items():
        peak = size(cost.peak_bytes) + (f", {clip(cost.run, 80)}" if cost.run else "")
        found.append((clip(name, 60), number(cost.seconds, "s"), peak))
        found += [(f"{clip(name, 30)}, {clip(part, 60)}", number(s, "s"), "") for part, s in (cost.parts or {}).items()]
    return found


def target_size(manifest: Manifest, name: str) -> int | None:
    """Bytes of all files in a target's folder, by the manifest; None where it lists none."""
    folder = manifest.targets[name].folder.rstrip("/") + "/"
    sizes = [listed.size for path, listed in manifest.files.items() if path.startswith(folder)]
    return sum(sizes) if sizes else None


def side_by_side(columns: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    """(label, a value for each column) for every label that some column has, in order."""
    labels = dict.fromkeys(label for column in columns for label in column)
    return [(label, [column.get(label, UNAVAILABLE) for column in columns]) for label in labels]
