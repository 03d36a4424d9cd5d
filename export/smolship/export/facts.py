"""What a model's files say about generating with it, resolved once, before any work: `resolve`.

Tokens that end an answer are the union of all that name one, in the order in which transformers would ask:
generation_config.json, config.json, the tokenizer's eos_token, the token that the tokenizer puts behind a text; then
the added token that follows the assistant's words in the chat template. A GGUF file names eos, eot and eom.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from smolship.export.checkpoints import Checkpoint
from smolship.export.families.fields import Fields
from smolship.export.sampling import RANGES, read_sampling
from smolship.export.templates import Found, find_template, one_line, try_template
from smolship.runtime.errors import InputError, clip, show
from smolship.runtime.facts import ROLES, EndToken, GenerationFacts, Recommended
from smolship.runtime.files import parse_json
from smolship.runtime.template import PROGRAM, TEMPLATE, ChatTemplate
from smolship.runtime.tokenizer import Tokenizer

GENERATION, TOKENIZER = "generation_config.json", "tokenizer_config.json"


@dataclass(frozen=True)
class Resolved:
    """What was read, with the chat template's source.

    notes     what the user should know
    problems  why the model cannot be exported
    """

    facts: GenerationFacts
    template: str | None
    notes: list[str]
    problems: list[str]

    def chat_template(self, date: str | None = None) -> ChatTemplate | None:
        return None if self.template is None else ChatTemplate(self.template, self.facts.special_tokens, date)

    def program(self) -> bytes | None:
        """template.json; None without a template, and for one that apps cannot render, which the notes say then."""
        return None if self.template is None else _compiled(self.template)[0]

    def shared_files(self, checkpoint: Checkpoint) -> dict[str, bytes]:
        """`side_files` and what is made of them, as they lie in the bundle."""
        program = self.program()
        return self.side_files(checkpoint) | ({} if program is None else {PROGRAM: program})

    def side_files(self, checkpoint: Checkpoint) -> dict[str, bytes]:
        """The checkpoint's side files for the bundle: one template where all look for it, and a generation config that
        says what the facts say."""
        files = {name: content for name, content in checkpoint.files.items() if name != TEMPLATE}
        if self.template is not None:
            files[TEMPLATE] = self.template.encode()
        config = _json(files, TOKENIZER)
        if config.pop("chat_template", None) is not None:
            files[TOKENIZER] = json.dumps(config, indent=1).encode()
        ours = ("do_sample", *RANGES, "bos_token_id", "eos_token_id", "pad_token_id")
        raw = {key: value for key, value in _json(files, GENERATION).items() if key not in ours}
        ids, defaults = list(self.facts.end_ids), asdict(Recommended())
        raw |= {
            "bos_token_id": self.facts.bos,
            "pad_token_id": self.facts.pad,
            "eos_token_id": ids[0] if len(ids) == 1 else ids or None,
        }
        raw |= {key: value for key, value in asdict(self.facts.sampling).items() if value != defaults[key]}
        kept = {key: value for key, value in raw.items() if value is not None}
        return files | {GENERATION: json.dumps(kept, indent=1).encode() + b"\n"}


def resolve(checkpoint: Checkpoint) -> Resolved:
    """What the checkpoint's files say about generating with it. Problems are listed, not raised, but for files that
    cannot be read at all."""
    reading = _Reading(checkpoint)
    sampling = reading.sampling()
    template, turn = reading.template()
    before, _ = reading.around
    ends = reading.ends(turn)
    texts = {i: reading.tokenizer.token(i) or "" for i in ends}
    facts = GenerationFacts(
        ends=tuple(EndToken(i, clip(texts[i], 200), tuple(origins)) for i, origins in ends.items()),
        bos=reading.bos(),
        pad=reading.pad(),
        adds_bos=before is not None,
        sampling=sampling,
        special_tokens=reading.special,
        template=template.origin,
    )
    return Resolved(facts, template.source, reading.notes, reading.problems)


class _Reading:
    """A checkpoint's files, read for `resolve`; what is found on the way goes into `notes` and `problems`."""

    def __init__(self, checkpoint: Checkpoint):
        self.checkpoint, self.vocab = checkpoint, checkpoint.config.vocab
        self.notes, self.problems = list(checkpoint.notes), list[str]()
        self.tokenizer = Tokenizer(checkpoint.files["tokenizer.json"])
        self.config, self.generation = (_json(checkpoint.files, name) for name in (TOKENIZER, GENERATION))
        self.special = _special_tokens(self.config, _json(checkpoint.files, "special_tokens_map.json"), self.problems)
        self.around = _around(self.tokenizer)

    def sampling(self) -> Recommended:
        if self.checkpoint.ends is not None:
            raw, where = self.generation, "the GGUF file"
        elif GENERATION in self.checkpoint.files:
            raw, where = self.generation, GENERATION
            other = self.checkpoint.raw
            if beside := [key for key in ("do_sample", *RANGES) if other.get(key) not in (None, raw.get(key))]:
                self.notes.append(
                    f"config.json: {', '.join(beside)}: not read beside {GENERATION}, by transformers neither"
                )
        else:
            raw, where = self.checkpoint.raw, "config.json"
        sampling, notes, problems = read_sampling(raw, where, self.vocab)
        self.notes += notes
        self.problems += problems
        return sampling

    def template(self) -> tuple[Found, int | None]:
        """The chat template, and the token that ends its turns."""
        home = self.checkpoint.tokenizer or self.checkpoint.path
        folder = home if home.is_dir() else None
        found = find_template(self.checkpoint.files, self.config, folder)
        found, end = try_template(found, self.special, self.tokenizer.added_tokens())
        self.notes += found.notes
        self.problems += found.problems
        if found.source is not None and (why := _compiled(found.source)[1]):
            self.notes.append(why)
        i = self.tokenizer.token_to_id(end) if end else None
        return found, i if i is not None and i < self.vocab else None

    def ends(self, turn: int | None) -> dict[int, list[str]]:
        """Every token that ends an answer, and what names it."""
        if self.checkpoint.ends is not None:
            named = [(origin, [i]) for origin, i in self.checkpoint.ends.items()]
        else:
            named = [
                (GENERATION, _ids(self.generation, "eos_token_id", self.vocab, GENERATION, self.problems)),
                ("config.json", [*self.checkpoint.config.eos]),
                (TOKENIZER, self._known("eos_token")),
            ]
        behind = self.around[1]
        named.append(("the tokenizer puts it behind a text", [i for i in [behind] if i is not None and i < self.vocab]))
        named.append(("chat template", [] if turn is None else [turn]))
        found: dict[int, list[str]] = {}
        for origin, ids in named:
            for i in dict.fromkeys(ids):
                found.setdefault(i, []).append(origin)
        if not found:
            self.notes.append("no file names a token that ends an answer: generation runs until --max-tokens")
        elif turn is not None and found[turn] == ["chat template"]:
            text = show(self.tokenizer.token(turn))
            self.notes.append(
                f"the chat template ends a turn with {text}, which no other file names as an end token; "
                "answers end there too"
            )
        return found

    def bos(self) -> int | None:
        """The first id that a file gives; a note where files disagree."""
        own = self.checkpoint.config.bos
        ids = {
            GENERATION: _ids(self.generation, "bos_token_id", self.vocab, GENERATION, self.problems),
            "config.json": [] if own is None else [own],
            TOKENIZER: self._known("bos_token"),
        }
        said = {where: found[0] for where, found in ids.items() if found}
        if len(set(said.values())) > 1:
            each = ", ".join(f"{i:,} in {where}" for where, i in said.items())
            self.notes.append(f"the BOS token differs, and the first counts: {each}")
        return next(iter(said.values()), None)

    def pad(self) -> int | None:
        """The token that fills up a batch. No answer depends on it: where it cannot be used, a note says so."""
        for raw, where in ((self.generation, GENERATION), (self.checkpoint.raw, "config.json")):
            wrong: list[str] = []
            if ids := _ids(raw, "pad_token_id", self.vocab, where, wrong):
                return ids[0]
            if wrong:
                self.notes.append(
                    f"{where}: pad_token_id is {show(raw['pad_token_id'])}, no token of the model; left "
                    "out, as nothing depends on it"
                )
        return next(iter(self._known("pad_token")), None)

    def _known(self, role: str) -> list[int]:
        """The id of a token that tokenizer_config.json names, where both tokenizer and model have it."""
        text = self.special.get(role)
        if text is None:
            return []
        i = self.tokenizer.token_to_id(text)
        if i is None or i >= self.vocab:
            lacks = "not in tokenizer.json" if i is None else f"id {i:,}, beyond the model's {self.vocab:,}"
            self.notes.append(f"{TOKENIZER}: {role} {show(text)} is {lacks}: not used")
            return []
        return [i]


def _compiled(template: str) -> tuple[bytes | None, str | None]:
    """A template compiled for apps; or why it cannot be."""
    from smolship.export.portable import compile_template, to_bytes  # jinja2, which most steps do without

    try:
        return to_bytes(compile_template(template)), None
    except InputError as error:
        return None, one_line(error)


def _json(files: dict[str, bytes], name: str) -> dict[str, Any]:
    return parse_json(files[name], name, "the checkpoint") if name in files else {}


def _special_tokens(raw: dict[str, Any], old: dict[str, Any], problems: list[str]) -> dict[str, str]:
    """bos_token and so on, as text. `old`, special_tokens_map.json, counts where tokenizer_config.json is of the old
    kind too, without a list of its added tokens."""
    raw = raw if "added_tokens_decoder" in raw else raw | old
    found = {}
    for role in ROLES:
        value = raw.get(role)
        text = value.get("content") if isinstance(value, dict) else value  # an AddedToken, or its text alone
        if isinstance(text, str) and text.encode("utf-8", "replace").decode() == text:
            found[role] = text
        elif value is not None:
            problems.append(f"{TOKENIZER}: {role} is {show(value)}; expected a token's text")
    return found


def _around(tokenizer: Tokenizer) -> tuple[int | None, int | None]:
    """The tokens that the tokenizer puts before and behind a raw text."""
    bare, whole = tokenizer.encode("a", special=False), tokenizer.encode("a")
    extra = len(whole) - len(bare)
    before = whole[0] if extra and whole[:1] != bare[:1] else None
    behind = whole[-1] if extra and whole[-1:] != bare[-1:] else None
    return before, behind


def _ids(raw: dict[str, Any], key: str, vocab: int, where: str, problems: list[str]) -> list[int]:
    """An id or a list of ids. Whole floats count, as in transformers; anything else is added to `problems`."""

    def whole(value: Any) -> Any:
        return int(value) if isinstance(value, float) and value.is_integer() else value

    value = raw.get(key)
    value = [*map(whole, value)] if isinstance(value, list) else whole(value)
    try:
        return list(Fields({key: value}, where).ids(key, vocab))
    except InputError as error:
        problems.append(one_line(error))
        return []
