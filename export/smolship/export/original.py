"""The original: the model's class in transformers, in float32, with the checkpoint's weights. Every gap of parity
begins at what it says. Where transformers has no class the family brings one (`OWN_ORIGINAL`)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import Conv1d, Module, Parameter
from torch.overrides import TorchFunctionMode

from smolship.export.checkpoints import Checkpoint
from smolship.export.checkpoints.files import INDEX, SINGLE
from smolship.export.checkpoints.gguf_file import read_gguf
from smolship.export.checkpoints.multimodal import text_name
from smolship.export.families import translate
from smolship.export.reference import Arrays, fill, product
from smolship.export.slots import Rows
from smolship.export.stream import Progress
from smolship.export.tensorfile import read_header
from smolship.runtime.errors import InputError

PIECE = 256  # positions whose logits exist at once: the head is read for each piece
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")  # no logit depends on them, and a wrong one ends the loading


class Original:
    """The model, in evaluation mode, as it is for texts that fill the `context`. `notes` say what the user should know
    of how it is read.

    Of a folder its weights are read when a module is called, that module's alone, and let go of when it is done:
    larger models than memory run so. A GGUF file, and a folder whose tensors have other names than the model's
    parameters, are loaded whole.
    """

    def __init__(self, checkpoint: Checkpoint, progress: Progress = lambda positions: None, context: int = 0):
        """Raises InputError where transformers refuses."""
        import transformers

        transformers.utils.logging.disable_progress_bar()
        _, family, _ = translate(checkpoint.raw, checkpoint.path)
        own = import_module(family.OWN_ORIGINAL) if hasattr(family, "OWN_ORIGINAL") else None
        self.notes: list[str] = [own.NOTE] if own else []
        self.tensors = Tensors([checkpoint.path / name for name in checkpoint.weights], progress)
        with ExitStack() as stack, _refusals():
            options: dict[str, Any]
            folder, options = checkpoint.path.parent, {"gguf_file": checkpoint.path.name}
            if own and not checkpoint.path.is_dir():
                self.tensors.stored |= _named(read_gguf(checkpoint.path)[1], own.GGUF, len(checkpoint.config.layers))
            if own or checkpoint.path.is_dir():
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="smolship-")))
                _link(checkpoint, folder, context)
                options = {"use_safetensors": True}
                self.model = _by_modules(folder, self.tensors)
            else:
                options["config"], ours = _config(folder, checkpoint, context)
                self.notes += [
                    "transformers reads the rotary embedding of no such GGUF file: as it is read here"
                ] * ours
                self.model = None
            if self.model is None:
                self.notes.append("transformers loads the original whole, in float32, to compare with it")
                self.model = _whole(folder, **options)

    def logits(self, ids: np.ndarray, at: np.ndarray) -> Iterator[Iterator[np.ndarray]]:
        """For each text of `ids` [N, S] its logits float32 [n, V] at the positions `at`, in pieces."""
        self.tensors.pass_by(ids.size)
        with torch.inference_mode(), Products():
            given = self.model.base_model(torch.from_numpy(ids.astype(np.int64)), use_cache=False)
        self.tensors.pass_by(0)
        for hidden in given.last_hidden_state:
            yield self._head(hidden[torch.from_numpy(at.astype(np.int64))])

    def _head(self, hidden: Tensor) -> Iterator[np.ndarray]:
        """The model's own way from hidden states [n, D] to logits, in pieces."""
        from transformers.modeling_outputs import BaseModelOutputWithPast

        for piece in hidden.split(PIECE):
            layers = {self.model.base_model_prefix: Given(BaseModelOutputWithPast(last_hidden_state=piece[None]))}
            with torch.inference_mode(), Products(), mock.patch.dict(self.model._modules, layers):
                found = self.model(input_ids=torch.zeros(1, len(piece), dtype=torch.int64), use_cache=False).logits
            yield np.asarray(found[0].float().numpy())

    def continuations(self, prompts: list[list[int]], tokens: int, reading: float = 0) -> list[np.ndarray]:
        """int32 [tokens] after each prompt: always the likeliest token. `reading` is what each token takes, in
        positions."""
        if not prompts:
            return []
        if any(isinstance(module, Conv1d) and module.bias is not None for module in self.model.modules()):
            # Padding is no zeros behind a gate with a bias: convolutions would see it.
            return [self._continued([prompt], tokens, reading)[0] for prompt in prompts]
        return self._continued(prompts, tokens, reading)

    def _continued(self, prompts: list[list[int]], tokens: int, reading: float) -> list[np.ndarray]:
        self.tensors.pass_by(reading)
        longest = max(map(len, prompts))
        padded = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        there = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode(), Products():
            out = self.model.generate(
                padded,
                attention_mask=there,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                temperature=None,
                top_p=None,
                top_k=None,
            )
        return [row[longest:].numpy().astype(np.int32) for row in out]


class Given(Module):
    """In place of the layers: what they gave."""

    def __init__(self, output: Any):
        super().__init__()
        self.output = output

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self.output


class Products(TorchFunctionMode):
    """Products of matrices in the faster library."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (product if func is torch.nn.functional.linear else func)(*args, **(kwargs or {}))


class Tensors(Mapping[str, Tensor]):
    """The tensors of safetensors files, in float32, each read when it is asked for. They are not mapped: whole files
    would be, and count as this process's memory.

    names  of the model's parameters -> those in the files
    """

    def __init__(self, paths: Sequence[Path], progress: Progress):
        self.stored: dict[str, Rows] = {}
        self.names: dict[str, str] = {}
        self.progress, self.share, self.arrays = progress, 0.0, Arrays()
        for path in paths:
            if path.suffix == ".safetensors":
                self.stored |= {text_name(name): slot for name, slot in read_header(path).items()}

    def pass_by(self, positions: float) -> None:
        """So many are about to pass through the whole model: progress is told as it is read."""
        self.share = positions / max(len(self.names), 1)

    def __getitem__(self, name: str) -> Tensor:
        self.progress(self.share)
        slot = self.stored[self.names[name]]
        found = self.arrays.take(slot.shape)
        fill(found, slot.read)
        return torch.from_numpy(found)

    def find(self, model: Any) -> bool:
        """Whether all parameters of the model are there, under their names or, as transformers looks for them, with or
        without the prefix of the layers."""
        ties, prefix = model.all_tied_weights_keys, f"{model.base_model_prefix}."
        for name, _ in model.named_parameters():
            own = ties.get(name, name)
            same = [own, *(other for other, first in ties.items() if first == own)]
            spelled = [word for one in same for word in (one, one.removeprefix(prefix), prefix + one)]
            there = [word for word in spelled if word in self.stored]
            if not there:
                return False
            self.names[name] = there[0]
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Joined:
    """Rows of several tensors, one after the other's."""

    parts: tuple[Rows, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:]

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start…stop."""
        found, stop = [], self.shape[0] if stop is None else stop
        for part in self.parts:
            rows = part.shape[0]
            if start < rows and stop > 0:
                found.append(part.read(max(start, 0), min(stop, rows)))
            start, stop = start - rows, stop - rows
        return np.concatenate(found)


def _named(stored: Mapping[str, Rows], names: Mapping[str, Sequence[str]], layers: int) -> dict[str, Any]:
    """A GGUF file's tensors under the names of parameters, those of each layer where a name has {} for it."""
    found = {}
    for i in range(layers):
        for name, parts in names.items():
            spelled = [part.format(i) for part in parts]
            if all(part in stored for part in spelled):
                found[name.format(i)] = Joined(tuple(stored[part] for part in spelled))
    return found


def _by_modules(folder: Path, tensors: Tensors) -> Any:
    """The model without weights, each module of which takes its own when it is called; None where they have other
    names."""
    import transformers
    from accelerate import init_empty_weights
    from transformers.initialization import no_init_weights

    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with no_init_weights(), init_empty_weights(include_buffers=False):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    if not tensors.find(model):
        return None
    for prefix, module in model.named_modules():
        if empty := dict(module.named_parameters(recurse=False)):
            # A convolution is not called: the module around it takes its weights.
            called = model.get_submodule(prefix.rpartition(".")[0]) if isinstance(module, Conv1d) else module
            called.register_forward_pre_hook(partial(_fill, tensors, f"{prefix}.", empty, module))
            called.register_forward_hook(partial(_empty, tensors, empty, module))
    return model.eval()


def _fill(
    tensors: Tensors, prefix: str, empty: dict[str, Parameter], module: Module, called: Module, given: object
) -> None:
    """Before a module is called, the parameters of it or of one in it."""
    for name in empty:
        setattr(module, name, Parameter(tensors[prefix + name], requires_grad=False))


def _empty(
    tensors: Tensors, empty: dict[str, Parameter], module: Module, called: Module, given: object, output: object
) -> None:
    """After it."""
    for name, parameter in empty.items():
        tensors.arrays.give(getattr(module, name).detach().numpy())
        setattr(module, name, parameter)


def _whole(folder: Path, **options: Any) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, **options
    ).eval()


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        OSError,
        RuntimeError,
        SafetensorError,
        TypeError,
        ValueError,
    ) as error:
        raise InputError(
            "transformers cannot open the model",
            got=f"{type(error).__name__}: {error}",
            todo="report it; --probe-tokens 0 exports without the original, and without parity",
        ) from None


def _config(folder: Path, checkpoint: Checkpoint, context: int) -> tuple[Any, bool]:
    """What transformers reads of a GGUF file, and what it does not read of every one, as we read it: the size of the
    heads, the norms' epsilon by another name, a rotary embedding that is scaled or of a part of each head, and the
    window beside it. The second is whether the rotary embedding is ours."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, gguf_file=checkpoint.path.name)
    if hasattr(config, "head_dim"):
        config.head_dim = checkpoint.config.attentions[0].head_dim
    if hasattr(config, "norm_eps"):
        config.norm_eps = checkpoint.config.norm_eps
    ours = witness(checkpoint, context)
    rotary = ours.get("rope_scaling", {}) | {key: ours[key] for key in ("partial_rotary_factor",) if key in ours}
    if not rotary:
        return config, False
    beside = {key: ours[key] for key in ("original_max_position_embeddings", "sliding_window") if key in ours}
    parameters = {"rope_type": "default", "rope_theta": ours["rope_theta"]} | rotary
    return type(config)(**config.to_dict() | beside | {"rope_parameters": parameters}), True


def _link(checkpoint: Checkpoint, folder: Path, context: int) -> None:
    """What transformers is to see, in `folder`."""
    for name in checkpoint.weights:
        entry = name == checkpoint.weights[0]  # which config.json may have named; ours leaves it to the order
        place = folder / ((INDEX if name.endswith(".json") else SINGLE) if entry else name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to((checkpoint.path / name).absolute())
    (folder / "config.json").write_text(json.dumps(witness(checkpoint, context)))


def witness(checkpoint: Checkpoint, context: int = 0) -> dict[str, Any]:
    """The config.json for the original: of the one that was found, as it was found, all that the computation depends
    on. How that is to be read stays transformers' affair, so that a wrong reading of ours shows as a gap.

    Where texts that fill the context have other divisors of their frequencies (LongRoPE), these stand for both."""
    raw, (_, _, reading) = checkpoint.raw, translate(checkpoint.raw, checkpoint.path)
    kept = {key: raw[key] for key in reading.seen if key in raw and (key != "head_dim" or raw[key] is not None)}
    if context > checkpoint.config.longest:
        scaled = {key: kept[key] for key in ("rope_scaling", "rope_parameters") if kept.get(key)}
        kept |= {key: of | {"short_factor": of["long_factor"]} for key, of in scaled.items() if "long_factor" in of}
    return kept | {"model_type": raw["model_type"]} | dict.fromkeys(TOKENS)
