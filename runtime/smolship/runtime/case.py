"""One target of a bundle, as parity measures and judges it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from smolship.runtime.artifact import listed_digest
from smolship.runtime.asking import Asked, ask
from smolship.runtime.bundle import Bundle
from smolship.runtime.engines import BY_PROCESSOR
from smolship.runtime.errors import InputError
from smolship.runtime.manifest import TargetEntry
from smolship.runtime.plan import PARITY, QUICK, Plan
from smolship.runtime.probes import Probes
from smolship.runtime.session import Session, Traits
from smolship.runtime.tokenizing import strings_of


@dataclass(frozen=True)
class Case:
    """The target `name`, and what an export measured of it."""

    bundle: Bundle
    name: str
    entry: TargetEntry
    probes: Probes

    @property
    def arithmetics(self) -> list[str]:
        """In what its engine can compute; empty: in its own."""
        others = BY_PROCESSOR.get(self.entry.engine, {}).values()  # which nobody can ask for
        return ["", *(name for name in self.probes.arithmetics(self.name) if name not in others)]

    @property
    def weights_digest(self) -> str:
        return self.entry.own_digest or self.bundle.manifest.weights_digest

    @property
    def artifact(self) -> str:
        """The digest of its artifact, by the manifest."""
        start, files = self.entry.folder + "/", self.bundle.manifest.files
        below = {name[len(start) :]: listed.sha256 for name, listed in files.items() if name.startswith(start)}
        return listed_digest(below, self.entry.info["file"])

    @property
    def bits(self) -> set[int]:
        """Of the matrices that are quantized, and of lifted ones, which may have other bits than the scheme."""
        scheme = self.bundle.manifest.quantization
        return {4, 8} if scheme.lifted else {scheme.linear, scheme.embedding, scheme.head} & {4, 8}

    def plan(self, arithmetic: str, threads: int, quick: bool) -> Plan:
        """A plan that opens it and asks nothing yet."""
        return Plan(QUICK if quick else PARITY, self.name, self.entry.engine, self.entry.info, threads, arithmetic)

    @cached_property
    def strings(self) -> tuple[str, ...]:
        """What tokenizers are held against the model's own on."""
        return strings_of(self.bundle.tokenizer, self.probes)

    def asked(self, plan: Plan, traits: Traits) -> Asked:
        """All that parity asks of the session that `plan` opens. A tokenizer has no arithmetic: it is asked once."""
        return ask(self.probes, plan, traits, self.strings if traits.tokenizer and not plan.arithmetic else None)

    def opened(self, plan: Plan) -> Session:
        """A session as `plan` has it. The files are hashed before the engine sees them first."""
        options = {"arithmetic": plan.arithmetic} if plan.arithmetic else {}
        return self.bundle.session(self.name, plan.threads, verify=not options, **options)


def case_of(bundle: Bundle, target: str) -> Case:
    """Raises InputError where the bundle does not hold the target, or its probes do not cover it."""
    entry, probes = bundle.entry(target), bundle.probes()
    stages = {"decoder", "decoder.ulp", "quantized", "quantized.noise", *(f"{target}.{n}" for n in ("ulp", "noise"))}
    if f"{target}.simulated" not in probes.sketches or not stages <= set(probes.gaps):
        raise InputError("the probes do not cover that target", got=target, expected=", ".join(probes.sketches))
    return Case(bundle, target, entry, probes)
