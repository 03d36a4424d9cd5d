"""The steps of one export: run, or taken from those that an earlier export has done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from smolship.export.bits.asked import Budget
from smolship.export.calibrate.asked import Calibration
from smolship.export.calibrate.documents import Document
from smolship.export.checkpoints import Checkpoint
from smolship.export.facts import Resolved
from smolship.export.kept import keys
from smolship.export.kept.entries import Record, now
from smolship.export.kept.store import Asked, Store
from smolship.export.options import Options
from smolship.export.steps import Calibrated, Checked, Chosen, Lowered, Probed, Quantized, read
from smolship.export.targets import NEEDS
from smolship.export.weights import Scheme, set_list
from smolship.export.windows import texts
from smolship.export.worker import Outcome
from smolship.runtime.files import read_bytes
from smolship.runtime.manifest import StepCost

Documents = Sequence[Document] | None
Progress = Callable[[str, str, int, int], None]  # (step, what, done, total)


def write_shared(checkpoint: Checkpoint, resolved: Resolved, folder: Path) -> None:
    """What targets share, and other tools look for: the list of the weights, config.json, tokenizer, chat template, as
    it is and for apps, and generation config."""
    shutil.copyfile(set_list(folder / ".work"), folder / "weights.json")
    (folder / "config.json").write_text(json.dumps(checkpoint.raw, indent=1) + "\n")
    for name, content in resolved.shared_files(checkpoint).items():
        (folder / name).write_bytes(content)


@dataclass
class Steps:
    """Runs the steps of one export, each in a process of its own, or takes them from the store; and keeps what they
    cost, by their labels. `folder` is the bundle that is made, with what does not stay in `.work`."""

    run_step: Callable[..., Outcome]
    checkpoint: Checkpoint
    model: str  # its name, for people
    store: Store
    progress: Progress
    costs: dict[str, StepCost] = field(default_factory=dict)
    _content: str = ""
    _state: list[tuple[int, ...]] = field(default_factory=list)

    def check(self, options: Options, out: Path, documents: Documents = None) -> Checked:
        """`documents` are the user's text to calibrate on. What the manifest says of costs are those of the steps that
        write; this one's are not among them."""
        self._state = keys.state(self.checkpoint)
        report = partial(self.progress, "check")
        request = self.checkpoint.places | {"options": asdict(options), "out": str(out), "documents": documents}
        checked = read(Checked, self.run_step("check", request, report).result)
        self._content = checked.model.checkpoint or ""
        if self.store.why:
            report(f"no steps are kept: {self.store.why}", 1, 1)
        return checked

    def bits(self, options: Options, documents: Documents, resolved: Resolved, folder: Path) -> Chosen:
        """Text that the model wrote is kept when it is interrupted, too."""
        assert options.budget
        calibration = None if options.calibration is None else asdict(options.calibration)
        asked = {
            "scheme": asdict(options.scheme),
            "budget": asdict(options.budget),
            "calibration": calibration,
            "resolved": _facts(resolved),
        }
        reads = {"checkpoint": self._content, "side files": resolved.side_files(self.checkpoint)}
        key = keys.key(asked, reads, ("torch", "safetensors", "gguf", "tokenizers", "jinja2"))
        words = _budget_in_words(options.budget)
        whole = Asked("bits", key, self.model, words)
        parts = Asked("parts", key | {"of": "bits"}, self.model, f"of a choice of bits: {words}")
        return read(Chosen, self._run(whole, "bits", asked, folder, {"documents": documents}, parts))

    def quantize(self, scheme: Scheme, work: Path, forms: Mapping[str, Sequence[int]] | None = None) -> Quantized:
        """`forms` are those of matrices that do not go by the scheme."""
        asked: dict[str, Any] = {"scheme": asdict(scheme)}
        if forms:
            asked["forms"] = {name: list(form) for name, form in forms.items()}
        key = keys.key(asked, {"checkpoint": self._content}, ("safetensors", "gguf"))
        kept = Asked("quantize", key, self.model, in_words(scheme) + (", bits by matrix" if forms else ""))
        return read(Quantized, self._run(kept, "quantize", asked, work.parent, {"folder": str(work)}))

    def calibrate(self, calibration: Calibration, documents: Documents, resolved: Resolved, folder: Path) -> Calibrated:
        """What it has done when it is interrupted is kept, too."""
        asked = {"calibration": asdict(calibration), "resolved": _facts(resolved)}
        reads = self._reads(resolved, folder) | {"checkpoint": self._content}
        key = keys.key(asked, reads, ("torch", "safetensors", "gguf", "tokenizers", "jinja2"))
        text = "text of its own" if calibration.sha256 is None else "a text of yours"
        words = f"{text}, effort {calibration.effort}, seed {calibration.seed}"
        whole = Asked("calibrate", key, self.model, words)
        parts = Asked("parts", key | {"of": "calibrate"}, self.model, f"of a calibration: {words}")
        places = {"folder": str(folder / ".work"), "documents": documents}
        return read(Calibrated, self._run(whole, "calibrate", asked, folder, places, parts))

    def lower(self, target: str, context: int, resolved: Resolved, folder: Path) -> Lowered:
        (folder / target).mkdir()
        asked = {"target": target, "context": context, "resolved": _facts(resolved)}
        reads = self._reads(resolved, folder)
        key = keys.key(asked, reads, ("torch", "jinja2", "tokenizers", *NEEDS[target]))
        kept = Asked("lower", key, self.model, f"{target}, context {context:,}")
        places = {"work": str(folder / ".work"), "bundle": str(folder), "folder": str(folder / target)}
        return read(Lowered, self._run(kept, f"lower {target}", asked, folder, places))

    def probe(self, options: Options, resolved: Resolved, folder: Path) -> list[str]:
        """Its parts, which do not depend on the list of targets, are kept by themselves, too."""
        tokens, text = options.probe_tokens, options.probe_text
        common = {"context": options.context, "tokens": tokens, "text": text, "resolved": _facts(resolved)}
        reads = self._reads(resolved, folder) | {"checkpoint": self._content, "texts": keys.digest(texts(text))}
        packages = ("torch", "transformers", "tokenizers", "jinja2", "safetensors", "gguf", "accelerate")
        words = f"{tokens:,} tokens of {'a text of your own' if text else 'the default text'}, "
        words += f"context {options.context:,}" + ", floors on Arm" * options.arm
        asked = common | {"targets": list(options.targets), "arm": options.arm}
        whole = Asked("probe", keys.key(asked, reads, packages), self.model, f"{', '.join(options.targets)}: {words}")
        parts = Asked("parts", keys.key(common, reads, packages), self.model, f"of probes: {words}")
        places = {"work": str(folder / ".work"), "path": str(folder / "probes.npz")}
        probed = read(Probed, self._run(whole, "probe", asked, folder, places, parts))
        self.costs["probe"] = replace(self.costs["probe"], parts=probed.seconds)
        return probed.notes

    def _reads(self, resolved: Resolved, folder: Path) -> dict[str, object]:
        """What stands for the files that lowering and probing read: the set of weights by its list (of which the hash
        of each tensor is a part), config and side files."""
        listed = read_bytes(set_list(folder / ".work"), "weights.json")
        return {"weights": listed, "config": self.checkpoint.config, "side files": resolved.side_files(self.checkpoint)}

    def _run(
        self,
        kept: Asked,
        label: str,
        asked: dict[str, Any],
        folder: Path,
        places: dict[str, Any],
        parts: Asked | None = None,
    ) -> Any:
        """The result of a step. What it writes into `folder` is what is kept of it."""
        report = partial(self.progress, label)
        said: list[str] = []
        if found := self.store.take(kept, folder, said.append):
            how = f"kept from {found.day}"
            report(how, 1, 1)
            self.costs[label] = StepCost(found.seconds, found.peak_bytes, how)
            return found.result
        before = _files(folder)
        request = asked | places | self.checkpoint.places
        with self.store.parts(parts, said.append) if parts else nullcontext() as place:
            if parts:
                request["kept"] = None if place is None else str(place)
            done = self.run_step(kept.kind, request, report)
        self.costs[label] = StepCost(round(done.seconds, 2), done.peak_bytes)
        if keys.state(self.checkpoint) == self._state:  # else nobody knows which content the step has read
            cost = self.costs[label]
            record = Record(kept.key, kept.model, kept.words, done.result, cost.seconds, cost.peak_bytes, now(), {})
            self.store.keep(kept, record, sorted(_files(folder) - before), folder, said.append)
        if said:
            report("; ".join(said), 1, 1)
        return done.result


def in_words(scheme: Scheme) -> str:
    group = f", groups of {scheme.group}" if scheme.linear == 4 else ""
    return f"{scheme.linear} bits{group}, embedding {scheme.embedding}, head {scheme.head}"


def _budget_in_words(budget: Budget) -> str:
    return f"{budget.bpw:g} bits a parameter" if budget.bpw is not None else f"{budget.size:,} bytes"


def _facts(resolved: Resolved) -> dict[str, Any]:
    """What steps go by: nothing in an artifact or in probes depends on the notes."""
    return asdict(replace(resolved, notes=[], problems=[]))


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
