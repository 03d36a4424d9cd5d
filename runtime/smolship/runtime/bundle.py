"""A bundle: the folder that `smolship export` writes and a device opens."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from smolship.runtime.engines import load_engine
from smolship.runtime.errors import InputError
from smolship.runtime.files import parse_json, read_bytes, read_text
from smolship.runtime.generate import Sampling
from smolship.runtime.manifest import Manifest, TargetEntry, check_files, read_manifest
from smolship.runtime.probes import Probes
from smolship.runtime.session import Session
from smolship.runtime.template import ChatTemplate
from smolship.runtime.tokenizer import Tokenizer


def open_bundle(path: str | Path) -> Bundle:
    """Open the bundle in folder `path`. Reads the manifest only; files are checked when they are used."""
    return Bundle(Path(path))


def default_threads() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Bundle:
    """See `open_bundle`."""

    def __init__(self, path: Path):
        self.path = path
        self.manifest: Manifest = read_manifest(path)

    def entry(self, target: str) -> TargetEntry:
        """The manifest's entry of a target, by the name of its folder."""
        if target not in self.manifest.targets:
            raise InputError("the bundle does not hold that target", got=target,
                             expected="one of " + ", ".join(self.manifest.targets))  # fmt: skip
        return self.manifest.targets[target]

    def verify(self, below: str = "") -> None:
        """Compare the files below a sub-folder with the manifest. Raises InputError that lists what differs."""
        if problems := check_files(self.path, self.manifest, below):
            raise InputError("the bundle was altered", got="; ".join(problems[:5]), expected="files as in the manifest",
                             todo="export it again, or copy it again")  # fmt: skip

    def session(self, target: str, threads: int | None = None, verify: bool = True) -> Session:
        """Open one artifact. `verify` hashes its files first."""
        entry = self.entry(target)
        if verify:
            self.verify(entry.folder + "/")
        engine = load_engine(entry.engine)
        return engine.open_session(self.path / entry.folder, entry.info, threads or default_threads())

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer(read_bytes(self.path / "tokenizer.json", "tokenizer.json"))

    @cached_property
    def _tokenizer_config(self) -> dict[str, Any]:
        path = self.path / "tokenizer_config.json"
        return parse_json(read_bytes(path, path.name), path.name, path) if path.exists() else {}

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template. Raises InputError where the model has none."""
        path = self.path / "chat_template.jinja"
        source = read_text(path, path.name) if path.exists() else self._tokenizer_config.get("chat_template")
        if isinstance(source, list):  # several, by name
            source = next(
                (t.get("template") for t in source if isinstance(t, dict) and t.get("name") == "default"), None
            )
        if not isinstance(source, str):
            raise InputError("the model has no chat template", got=self.path, todo="use `smolship generate --raw`")
        return ChatTemplate(source, self._special_tokens())

    def _special_tokens(self) -> dict[str, str]:
        """bos_token and the like, which templates use; plain strings or objects with `content`."""
        tokens = {}
        for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
            value = self._tokenizer_config.get(key)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                tokens[key] = value
        return tokens

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return tuple(self.manifest.model["eos"])

    @cached_property
    def sampling(self) -> Sampling:
        """What the model's makers recommend in generation_config.json; greedy where they say nothing."""
        path = self.path / "generation_config.json"
        raw = parse_json(read_bytes(path, path.name), path.name, path) if path.exists() else {}
        if not raw.get("do_sample"):
            return Sampling()
        known = {key: raw[key] for key in ("temperature", "top_p", "top_k") if isinstance(raw.get(key), int | float)}
        return Sampling(**known)

    def probes(self) -> Probes:
        """The golden probes; hashed first."""
        self.verify("probes.npz")
        return Probes.load(self.path / "probes.npz")
