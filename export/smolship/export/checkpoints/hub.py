"""A model of the Hugging Face Hub: downloaded into its cache, or found there."""

from __future__ import annotations

from pathlib import Path

from smolship.export.checkpoints import advice
from smolship.runtime.errors import InputError, SetupError

HUB_TIMEOUT = 10.0  # seconds until the Hub must have answered the first question
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer*"]


def download(model: str, revision: str | None) -> tuple[Path, str | None]:
    """(snapshot folder, commit) of a Hub model; from the local cache where the Hub does not answer."""
    import huggingface_hub as hub
    from huggingface_hub import errors

    offline: Exception | None = None
    try:
        info = hub.model_info(model, revision=revision, timeout=HUB_TIMEOUT)
        revision = info.sha
        if refusal := advice.repository(model, [file.rfilename for file in getattr(info, "siblings", None) or ()]):
            raise refusal
    except errors.HFValidationError as error:
        raise InputError("no such folder, and not a Hub id", got=error, expected="owner/name") from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise InputError(
            "no such folder, and not found on the Hub",
            got=f"{model}{f' at {revision}' if revision else ''} ({type(error).__name__})",
            expected="a local folder, a .gguf file or a Hub id",
            todo="check the name and revision, or log in if the model is private",
        ) from None
    except (errors.HTTPError, OSError) as error:
        offline = error
    try:
        folder = hub.snapshot_download(
            model,
            revision=revision,
            allow_patterns=HUB_FILES,
            ignore_patterns=["*/*"],
            local_files_only=offline is not None,
        )
    except (errors.HTTPError, OSError) as error:
        raise SetupError(
            f"{model!r} is no local folder, and the Hub cannot be reached",
            got=f"{type(error).__name__}: {offline or error}",
            todo="check the path, or the network",
        ) from None
    return Path(folder), revision
