"""The original: the model's class in transformers, in float32, with the checkpoint's weights. Every gap of parity
begins at what it says."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from smolship.export.checkpoints import Checkpoint
from smolship.export.checkpoints.files import INDEX, SINGLE
from smolship.export.families import translate
from smolship.runtime.errors import InputError

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")  # no logit depends on them, and a wrong one ends the loading


def original(checkpoint: Checkpoint) -> Any:
    """The model, in evaluation mode.

    Of a folder, transformers sees the weights and a config.json of ours (`witness`) and nothing else: generation
    configs, adapters and quantization settings beside them would be loaded, too. Raises InputError where transformers
    refuses.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    options: dict[str, Any]
    with ExitStack() as stack:
        folder, options = checkpoint.path.parent, {"gguf_file": checkpoint.path.name}
        if checkpoint.path.is_dir():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="smolship-")))
            _link(checkpoint, folder)
            options = {"use_safetensors": True}
        try:
            if checkpoint.path.is_file():
                options["config"] = _config(folder, checkpoint)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, **options
            )
        except (ValueError, TypeError, KeyError, RuntimeError, OSError) as error:
            raise InputError(
                "transformers cannot open the model",
                got=f"{type(error).__name__}: {error}",
                todo="report it; --probe-tokens 0 exports without the original, and without parity",
            ) from None
    return model.eval()


def _config(folder: Path, checkpoint: Checkpoint) -> Any:
    """What transformers reads of a GGUF file, and the size of the heads, which it does not read of every one."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, gguf_file=checkpoint.path.name)
    if hasattr(config, "head_dim"):
        config.head_dim = checkpoint.config.layers[0].mixer.head_dim
    return config


def _link(checkpoint: Checkpoint, folder: Path) -> None:
    """What transformers is to see, in `folder`."""
    for name in checkpoint.weights:
        entry = name == checkpoint.weights[0]  # which config.json may have named; ours leaves it to the order
        place = folder / ((INDEX if name.endswith(".json") else SINGLE) if entry else name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to((checkpoint.path / name).absolute())
    (folder / "config.json").write_text(json.dumps(witness(checkpoint)))


def witness(checkpoint: Checkpoint) -> dict[str, Any]:
    """The config.json for the original: of the one that was found, as it was found, all that the computation depends
    on. How that is to be read stays transformers' affair, so that a wrong reading of ours shows as a gap."""
    raw, (_, _, reading) = checkpoint.raw, translate(checkpoint.raw, checkpoint.path)
    kept = {key: raw[key] for key in reading.seen if key in raw and (key != "head_dim" or raw[key] is not None)}
    return kept | {"model_type": raw["model_type"]} | dict.fromkeys(TOKENS)
