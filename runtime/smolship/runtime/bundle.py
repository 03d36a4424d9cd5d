"""A bundle: the folder that `smolship export` writes and a device opens."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from smolship.runtime.engines import load_engine
from smolship.runtime.errors import InputError
from smolship.runtime.files import read_bytes, read_text
from smolship.runtime.generate import Sampling
from smolship.runtime.manifest import Manifest, TargetEntry, check_files, read_manifest
from smolship.runtime.probes import Probes
from smolship.runtime.session import Session
from smolship.runtime.template import TEMPLATE, ChatTemplate
from smolship.runtime.tokenizer import Tokenizer

PROBES = "probes.npz"


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
            raise InputError(
                "the bundle does not hold that target",
                got=target,
                expected="one of " + ", ".join(self.manifest.targets),
            )
        return self.manifest.targets[target]

    def verify(self, below: str = "") -> None:
        """Compare the files below a sub-folder with the manifest. Raises InputError that lists what differs."""
        if problems := check_files(self.path, self.manifest, below):
            raise InputError(
                "the bundle was altered",
                got="; ".join(problems[:5]),
                expected="files as in the manifest",
                todo="export it again, or copy it again",
            )

    def session(self, target: str, threads: int | None = None, verify: bool = True, **options: Any) -> Session:
        """Open one artifact. `verify` hashes its files first; `options` are the engine's own, such as `arithmetic`."""
        entry = self.entry(target)
        if verify:
            self.verify(entry.folder + "/")
        engine = load_engine(entry.engine)
        return engine.open_session(self.path / entry.folder, entry.info | options, threads or default_threads())

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; its file is hashed first, as native code parses it."""
        self.verify("tokenizer.json")
        return Tokenizer(read_bytes(self.path / "tokenizer.json", "tokenizer.json"))

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template. Raises InputError where the model has none."""
        if self.manifest.generation.template is None:
            raise InputError("the model has no chat template", got=self.path, todo="use `smolship generate --raw`")
        return ChatTemplate(read_text(self.path / TEMPLATE, TEMPLATE), self.manifest.generation.special_tokens)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return self.manifest.generation.end_ids

    @property
    def sampling(self) -> Sampling:
        """What the model's makers recommend; greedy where they say nothing."""
        return self.manifest.generation.sampling.sampling()

    @property
    def has_probes(self) -> bool:
        return PROBES in self.manifest.files

    def probes(self) -> Probes:
        """The golden probes; hashed first."""
        if not self.has_probes:
            raise InputError("the bundle has no probes", got=self.path, todo="export it again with --probe-tokens")
        self.verify(PROBES)
        return Probes.load(self.path / PROBES)
