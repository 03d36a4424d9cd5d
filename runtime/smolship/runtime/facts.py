"""What a model's files say about generating with it, resolved once at export (export/facts.py) and kept in the
manifest: the tokens that end an answer, the sampling that its makers recommend, the chat template. Read as untrusted
input.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from smolship.runtime.generate import Sampling
from smolship.runtime.records import wrong

WHERE = "manifest.json"
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MOST_ENDS = 512  # more than any model has


@dataclass(frozen=True)
class ModelFacts:
    """What the manifest says of the model, for people and reports; `vocab` bounds the ids of tokens. `checkpoint` is a
    SHA-256 over its weights and config (export/kept/keys.py); older bundles lack it."""

    source: str  # a Hub id, or the name of a folder or file
    revision: str | None
    architecture: str
    layers: int
    hidden: int
    heads: int | None  # these three are None where layers differ
    kv_heads: int | None
    head_dim: int | None
    vocab: int
    parameters: int
    checkpoint: str | None = None


@dataclass(frozen=True)
class EndToken:
    """A token that ends an answer. `text` is empty where the tokenizer does not know the id; `origins` are what names
    it, such as "generation_config.json"."""

    id: int
    text: str
    origins: tuple[str, ...]


@dataclass(frozen=True)
class Recommended:
    """The sampling that the model's makers recommend, as transformers reads it, defaults filled in. Without `do_sample`
    it is greedy, and the others hold for whoever asks for a temperature."""

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def sampling(self) -> Sampling:
        return Sampling(
            self.temperature if self.do_sample else 0.0, self.top_p, self.top_k, self.min_p, self.repetition_penalty
        )


@dataclass(frozen=True)
class GenerationFacts:
    """See the module.

    ends            every token that ends an answer, the first one transformers would name first
    adds_bos        the tokenizer puts `bos` in front of a raw text
    special_tokens  what the chat template sees as bos_token and so on
    template        where the bundle's chat_template.jinja comes from; None where it has none
    """

    ends: tuple[EndToken, ...] = ()
    bos: int | None = None
    pad: int | None = None
    adds_bos: bool = False
    sampling: Recommended = Recommended()
    special_tokens: dict[str, str] = field(default_factory=dict)
    template: str | None = None

    @property
    def end_ids(self) -> tuple[int, ...]:
        return tuple(end.id for end in self.ends)


def check_model(model: ModelFacts) -> None:
    """Refuses what is out of range."""
    if not 1 <= model.vocab <= 1 << 24:
        raise wrong(f"{WHERE}: model.vocab", model.vocab, "1 to 16,777,216")


def check_facts(facts: GenerationFacts, vocab: int) -> None:
    """Refuses what is out of range, for a model of so many tokens."""
    where = f"{WHERE}: generation"
    if len(facts.ends) > MOST_ENDS:
        raise wrong(f"{where}.ends", f"{len(facts.ends):,} tokens", f"up to {MOST_ENDS}")
    if strange := set(facts.special_tokens) - set(ROLES):
        raise wrong(f"{where}.special_tokens", sorted(strange), "only " + ", ".join(ROLES))
    ids = {f"ends[{i}].id": end.id for i, end in enumerate(facts.ends)} | {"bos": facts.bos, "pad": facts.pad}
    for key, number in ids.items():
        if number is not None and not 0 <= number < vocab:
            raise wrong(f"{where}.{key}", number, f"a token id below {vocab:,}")
    facts.sampling.sampling()
