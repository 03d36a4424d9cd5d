"""A small Llama trained in full precision: `python -P -m smolship.tools.fidelity.train FOLDER`.

Public models that are small and at hand were often stored at 4 bits once, which favours whatever rounds them back onto
a grid near theirs. This one was never rounded: float32 from its first step to the file. Its widths are multiples of
256, as llama.cpp's K-quants want them.

Text, vocabulary, batches and initial weights follow from the seed; sums in float32 differ between processors, and so do
the weights in the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smolship.runtime.errors import InputError
from smolship.runtime.folders import new_folder
from smolship.tools.console import Screen, begin, exit_code
from smolship.tools.display import Steps
from smolship.tools.fidelity.texts import SOURCE, texts

if TYPE_CHECKING:
    from torch import Tensor

END = "<|end|>"
HELD_OUT = 256  # windows
Progress = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how. `peak` is the largest learning rate, of AdamW (Loshchilov and Hutter 2019,
    arXiv:1711.05101), after a warm-up and before a cosine down to 0."""

    vocabulary: int = 2048
    hidden: int = 256
    inner: int = 768
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    context: int = 256
    batch: int = 16
    steps: int = 900
    warm_up: int = 50
    peak: float = 3e-3
    decay: float = 0.1
    seed: int = 0

    @property
    def key(self) -> str:
        """A hash over recipe and text."""
        told = json.dumps([asdict(self), texts().training], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:12]


def small_model(cache: Path, progress: Progress, recipe: Recipe = Recipe()) -> Path:
    """The folder of the trained model below `cache`; made where it is not there yet."""
    folder = cache / f"small-{recipe.key}"
    if not folder.exists():
        with new_folder(folder) as new:
            train(recipe, new, progress)
    return folder


def train(recipe: Recipe, folder: Path, progress: Progress) -> None:
    """Write a checkpoint as transformers saves it, and training.json, which says how it came to be."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(recipe.seed)
    progress("vocabulary", 0, recipe.steps)
    encode = write_tokenizer(recipe, list(texts().training.values()), folder)
    model = transformers.LlamaForCausalLM(_config(recipe))
    batches = _batches(recipe, encode(texts().training.values()))
    decayed = [p for p in model.parameters() if p.dim() > 1]
    gains = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": recipe.decay}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.peak, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, recipe))
    losses = []
    for step in range(recipe.steps):
        ids = next(batches)
        loss = model(ids, labels=ids, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        progress(f"loss {losses[-1]:.3f}", step + 1, recipe.steps)
    last = losses[-20:]
    told = {
        "text": SOURCE,
        "recipe": asdict(recipe),
        "loss": sum(last) / len(last),
        "held_out_loss": held_out(model, encode(texts().judging.values()), recipe),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }
    (folder / "training.json").write_text(json.dumps(told, indent=1) + "\n")
    model.save_pretrained(folder)


def held_out(model: Any, ids: Tensor, recipe: Recipe) -> float:
    """Loss a token on the documents for judging, up to HELD_OUT windows of them, in nats."""
    import torch

    windows = ids[: len(ids) // recipe.context * recipe.context].view(-1, recipe.context)[:HELD_OUT]
    with torch.inference_mode():
        found = [float(model(part, labels=part, use_cache=False).loss) * len(part) for part in windows.split(16)]
    return sum(found) / len(windows)


def _rate(recipe: Recipe, step: int) -> float:
    """The learning rate of a step, as a share of the peak."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - recipe.warm_up) / max(recipe.steps - recipe.warm_up, 1)))


def _config(recipe: Recipe) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        dtype="float32",
        attn_implementation="sdpa",
    )


def write_tokenizer(recipe: Recipe, documents: Sequence[str], folder: Path) -> Callable[..., Tensor]:
    """A byte-level BPE of those documents, as GPT-2's, in `folder`. Returns what encodes documents, an end token before
    each."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    if tokenizer.get_vocab_size() != recipe.vocabulary:
        raise InputError(
            "the text is too short for the vocabulary",
            got=f"{tokenizer.get_vocab_size():,} tokens",
            expected=f"{recipe.vocabulary:,}",
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(about) + "\n")

    def encode(documents: Sequence[str]) -> Tensor:
        return torch.tensor([i for text in documents for i in [0, *tokenizer.encode(text).ids]])

    return encode


def _batches(recipe: Recipe, ids: Tensor) -> Iterator[Tensor]:
    """Windows [batch, context] that begin anywhere in the text, for ever."""
    import torch

    random = torch.Generator().manual_seed(recipe.seed)
    while True:
        starts = torch.randint(len(ids) - recipe.context, (recipe.batch,), generator=random)
        yield torch.stack([ids[start : start + recipe.context] for start in starts.tolist()])


def main() -> int:
    begin()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, nargs="?", default=Path(".cache/fidelity"), help="Default: .cache/fidelity")
    cache = parser.parse_args().cache

    def command() -> int:
        with Steps(Screen(stderr=True)) as steps:
            print(small_model(cache, partial(steps.update, "train")))
        return 0

    return exit_code(command, Screen(stderr=True))


if __name__ == "__main__":
    sys.exit(main())
