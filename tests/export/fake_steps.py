"""Steps of an export that take no time: they write some bytes, which follow from all that they are given and read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from smolship.export.checkpoints import open_checkpoint
from smolship.export.facts import Resolved, resolve
from smolship.export.kept.keys import content, digest
from smolship.export.steps import Checked, Quantized
from smolship.export.windows import make_windows
from smolship.export.worker import Outcome
from smolship.runtime.facts import ModelFacts
from smolship.runtime.manifest import TargetEntry
from smolship.runtime.probes import Probes
from smolship.runtime.tokenizer import Tokenizer

RESOLVED: dict[str, Resolved] = {}  # by the content of side files: templates are tried in a process of their own


class FakeSteps:
    """In place of `run_step`; `begun` are the steps that were, but for the check, and `parts` what the folders for
    parts of probes held, which each probing adds one to. `stop` is the step before which the user interrupts."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.parts: list[list[str] | None] = []
        self.stop = ""

    def __call__(self, name: str, arguments: dict[str, Any], progress: Any) -> Outcome:
        arguments = json.loads(json.dumps(arguments))
        label = f"lower {arguments['target']}" if name == "lower" else name
        if name != "check":
            self.begun.append(label)
        if label == self.stop and name != "probe":
            raise KeyboardInterrupt
        progress(label, 0, 1)
        result = getattr(self, name)(**arguments)
        progress(label, 1, 1)
        return Outcome(json.loads(json.dumps(result)), float(len(self.begun)), 1000 + len(self.begun))

    def check(self, model: str, options: Any, out: str, documents: Any = None) -> Any:
        checkpoint = open_checkpoint(model)
        files = digest(checkpoint.files)
        if files not in RESOLVED:
            RESOLVED[files] = resolve(checkpoint)
        name = Path(options["model"]).name
        digits = content(checkpoint, lambda *_: None)
        facts = ModelFacts(name, None, "llama", 2, 128, 4, 2, 32, checkpoint.config.vocab, 284_800, digits)
        return asdict(Checked(facts, RESOLVED[files]))

    def quantize(self, model: str, scheme: Any, folder: str) -> Any:
        said = digest((content(open_checkpoint(model), lambda *_: None), scheme))
        Path(folder, "weights.json").write_text(json.dumps({"digest": said}))
        Path(folder, "weights.safetensors").write_bytes(bytes.fromhex(said) * 100)
        return asdict(Quantized(said, 1.0, 0, 1000))

    def lower(self, model: str, target: str, context: int, resolved: Any, work: str, bundle: str, folder: str) -> Any:
        config = repr(open_checkpoint(model).config)
        said = digest((target, context, resolved, config, Path(work, "weights.json").read_bytes()))
        Path(folder, "model").write_bytes(bytes.fromhex(said) * 100)
        Path(folder, "more").mkdir()
        Path(work, target).mkdir()
        Path(work, target, "weights.safetensors").write_text(said)
        Path(folder, "more", "data").write_text(said)
        return {"entry": TargetEntry(target, target, target, {"file": "model"}).to_json(), "notes": ["a note"]}

    def probe(
        self,
        model: str,
        targets: Any,
        context: int,
        tokens: int,
        text: str | None,
        arm: bool,
        resolved: Any,
        work: str,
        path: str,
        kept: str | None,
    ) -> Any:
        self.parts.append(None if kept is None else sorted(part.name for part in Path(kept).iterdir()))
        if kept is not None:
            Path(kept, f"part{len(self.parts)}").write_text("measured")
        if self.stop == "probe":
            raise KeyboardInterrupt
        said = digest((targets, context, tokens, text, arm, resolved, Path(work, "weights.json").read_bytes()))
        windows = make_windows(Tokenizer(open_checkpoint(model).files["tokenizer.json"]), context, tokens, text)
        Probes(windows, {"tokens": tokens, "said": said}).save(Path(path))
        return {"notes": ["a note of the probes"], "seconds": {"original": 1.5}}
