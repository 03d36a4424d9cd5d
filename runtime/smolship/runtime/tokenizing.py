"""Whether an engine's own tokenizer, on whatever machine, makes of texts what the model's does.

Texts are the hard strings and the prompts of the probes. Of each the ids must be equal, with what the model wants
around a text and without it, as far as the tokenizer can do both; and so must the text that it makes of them again,
but where added tokens are among them, which programs show or hide by rules of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smolship.runtime.errors import clip
from smolship.runtime.hard_strings import hard_strings
from smolship.runtime.judge import Check, equality, unmeasured
from smolship.runtime.plan import ALL_STRINGS, LONGEST_STRING, MOST_STRINGS
from smolship.runtime.probes import Probes
from smolship.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from smolship.runtime.case import Case
    from smolship.runtime.result import Result, Tokens

STAGE, WHAT = "tokenizer", "text → ids → text"
# What an export says of a GGUF file begins so, where llama.cpp makes other ids of some text beyond ASCII.
CUTS, LEAVES = "llama.cpp's tokenizer cuts otherwise", "llama.cpp leaves white space beyond ASCII"
MOST_ADDED = 64  # tokens that are found before anything else, of which strings are made
SHOWN = 3  # texts that a note names
NONE = "what executed it has no tokenizer that can be asked; an app's own is checked where the app executes (--via app)"


def strings_of(tokenizer: Tokenizer, probes: Probes) -> tuple[str, ...]:
    """The texts for a model, always the same of the same files. NUL is in none: it ends a text in many interfaces."""
    names = sorted(name for name in probes.arrays if name.startswith("greedy.prompt."))
    prompts = [tokenizer.decode(probes.arrays[name].tolist(), skip_special=False) for name in names]
    found: list[str] = []
    room = ALL_STRINGS
    for text in dict.fromkeys([*prompts, *hard_strings(tokenizer, None, most_added=MOST_ADDED)]):
        size = len(text.encode(errors="replace"))
        if "\0" not in text and size <= LONGEST_STRING and size <= room:
            found.append(text)
            room -= size
    return tuple(found[:MOST_STRINGS])


def tokenizer_check(case: Case, result: Result) -> Check:
    """The gate's row for what the engine's tokenizer made of the texts; unmeasured where it has none."""
    if not result.traits.tokenizer or result.strings is None:
        return unmeasured(STAGE, WHAT, NONE)
    notes = case.bundle.manifest.quantization.notes
    lenient = any(note.startswith((f"{case.name}: {CUTS}", f"{case.name}: {LEAVES}")) for note in notes)
    return compared(result.traits.tokenizer, case.bundle.tokenizer, case.strings, result.strings, lenient)


def compared(name: str, ours: Tokenizer, texts: Sequence[str], theirs: Sequence[Tokens], lenient: bool) -> Check:
    """`theirs` against `ours`. `lenient`: the export said of text beyond ASCII that it is cut otherwise, so it is told
    and not judged."""
    added = ours.added_ids()
    pairs = zip(texts, theirs, strict=True)
    found = [one for text, tokens in pairs if (one := difference(ours, added, text, tokens))]
    wrong = [one for one in found if not (lenient and not one.text.isascii())]
    wrong.sort(key=lambda one: (len(one.text), one.text))  # the shortest say most
    told = len(found) - len(wrong)
    notes = [f"{clip(name, 40)}: {len(wrong):,} of {len(texts):,} texts differ: {_listed(wrong)}"] if wrong else []
    notes += [f"beyond ASCII {told:,} of {len(texts):,} texts have other ids, as the export said"] if told else []
    equal = len(texts) - len(found)
    return equality(STAGE, WHAT, len(texts), equal, not wrong, "; ".join(notes), wrong[0].place if wrong else "")


@dataclass(frozen=True)
class Difference:
    """The first of one text: where it is, and what is there."""

    text: str
    place: str
    got: str
    expected: str

    def __str__(self) -> str:
        return f"{self.place} is {self.got}, not {self.expected}"


def difference(ours: Tokenizer, added: set[int], text: str, tokens: Tokens) -> Difference | None:
    """What the first difference is; None where there is none."""
    shown = clip(ascii(text), 40)
    if tokens.bare is None and tokens.around is None:
        return Difference(text, shown, "refused", "tokenized")
    for given, special in ((tokens.bare, False), (tokens.around, True)):
        if given is not None and (got := given.tolist()) != (ids := ours.encode(text, special=special)):
            at = next((i for i, pair in enumerate(zip(got, ids, strict=False)) if len(set(pair)) > 1), None)
            at = min(len(got), len(ids)) if at is None else at
            place = f"{shown}, token {at + 1}"
            return Difference(text, place, *(str(one[at]) if at < len(one) else "missing" for one in (got, ids)))
    ids = ours.encode(text, special=tokens.bare is None)
    if added.isdisjoint(ids) and tokens.text != (again := ours.decode(ids)):
        got = "no text" if tokens.text is None else clip(ascii(tokens.text), 40)
        return Difference(text, f"{shown}, as text again", got, clip(ascii(again), 40))
    return None


def _listed(found: Sequence[Difference]) -> str:
    return "; ".join(map(str, found[:SHOWN])) + ("; …" if len(found) > SHOWN else "")
