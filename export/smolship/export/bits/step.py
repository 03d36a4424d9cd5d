"""The step `bits`: a budget in, the form of each matrix out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch

from smolship.export.bits.asked import WINDOWS, Budget
from smolship.export.bits.sensitivity import Sensitivity
from smolship.export.bits.units import Costs, Plan, choose_forms, plan
from smolship.export.calibrate.asked import Calibration, is_whole, window
from smolship.export.calibrate.documents import Document
from smolship.export.calibrate.pool import open_pool
from smolship.export.calibrate.state import State
from smolship.export.calibrate.step import window_texts
from smolship.export.checkpoints import Checkpoint
from smolship.export.facts import Resolved
from smolship.export.weights import Form, Scheme
from smolship.runtime.errors import InputError
from smolship.runtime.manifest import BudgetFacts

Progress = Callable[[str, int, int], None]
# Of the KL of 4 bits: of layers .45 on SmolLM2 and .21 on the small model of tools.fidelity, of the latter's table .62.
LEFT, LEFT_OF_TABLES = 0.35, 0.62
PARTS, WRITING = 1000, 400  # of the progress, and of it those of text that the model writes


def choose(
    checkpoint: Checkpoint,
    resolved: Resolved,
    scheme: Scheme,
    budget: Budget,
    calibration: Calibration | None,
    documents: Sequence[Document] | None,
    state: State,
    progress: Progress,
    threads: int | None = None,
    device: str | None = None,
) -> tuple[dict[str, Form], BudgetFacts]:
    """The form of each matrix but those that are lifted, and what the manifest says of it. The text is what is
    calibrated on, where that is one, and else the model writes it."""
    config, asked = checkpoint.config, calibration or Calibration()
    found, done = plan(checkpoint, config, scheme, budget), 0.0

    def told(what: str, share: float) -> None:
        nonlocal done
        done += share
        progress(what, min(round(done), PARTS - 1), PARTS)

    with open_pool(threads, device) as pool:
        texts = window_texts(
            checkpoint,
            resolved,
            documents,
            WINDOWS,
            window(config),
            asked.seed,
            pool,
            state,
            lambda what, share: told(what, WRITING * share),
            is_whole(config),
        )
        told("text", max(0.0, WRITING - done))
        ids = torch.from_numpy(texts).to(pool.device)
        forms = {name: unit.forms for unit in found.units for name in unit.names}
        measured = Sensitivity(config, checkpoint, forms, ids, asked.seed, pool)
        costs = measured.run(lambda what, share: told(what, (PARTS - WRITING) * share))
    if not all(math.isfinite(cost) for one in costs.values() for cost in one.values()):
        raise InputError(
            "the model's answers are not finite numbers, so that no sensitivity can be measured",
            got="NaN or infinity in gradients",
            todo="leave out the budget",
        )
    chosen = choose_forms(found, calibrated(costs) if calibration else costs)
    state.clear()
    progress("done", PARTS, PARTS)
    return chosen, _facts(found, chosen, costs, budget, asked, texts.size)


def calibrated(costs: Costs) -> Costs:
    """What is left of the costs where the set is calibrated afterwards."""

    def left(name: str, bits: int) -> float:
        return 1.0 if bits > 4 else LEFT if name.startswith("layers.") else LEFT_OF_TABLES

    return {name: {form: cost * left(name, form[0]) for form, cost in one.items()} for name, one in costs.items()}


def _facts(
    found: Plan, chosen: Mapping[str, Form], costs: Costs, budget: Budget, asked: Calibration, tokens: int
) -> BudgetFacts:
    size, shares = found.size(chosen), Counter[str]()
    for unit in found.units:
        bits, group = chosen[unit.names[0]]
        shares[f"int4, groups of {group}" if bits == 4 else f"{bits} bits"] += sum(map(math.prod, unit.shapes))
    return BudgetFacts(
        bpw=budget.bpw,
        size=budget.size,
        bytes=size,
        bits_per_weight=round(8 * size / found.parameters, 4),
        text=asked.text,
        sha256=asked.sha256,
        seed=asked.seed,
        tokens=tokens,
        kl=round(sum(costs[name][form] for name, form in chosen.items()), 6),
        forms={name: round(count / found.parameters, 4) for name, count in sorted(shares.items())},
    )
