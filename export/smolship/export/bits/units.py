"""Which matrices share a form, the forms that each may have, and their bytes.

Matrices that share their input are one unit: some targets pack or fuse them, which takes one form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smolship.export.bits.allocate import allocate
from smolship.export.bits.asked import Budget
from smolship.export.checkpoints import Checkpoint
from smolship.export.config import DecoderConfig
from smolship.export.quantize import GROUPS, layout
from smolship.export.traffic import set_bytes
from smolship.export.weights import Form, Scheme, Source, layouts
from smolship.runtime.errors import InputError
from smolship.runtime.readback.hashing import Entry

Costs = dict[str, dict[Form, float]]  # of each form of each matrix, KL in nats a token
TOGETHER = (("q", "k", "v"), ("gate", "up"))


@dataclass(frozen=True)
class Unit:
    """Matrices of one form, which is one of `forms`."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]
    forms: tuple[Form, ...]

    def bytes(self, form: Form) -> int:
        """Codes and scales."""
        return sum(set_bytes(Entry(shape, *form, "")) for shape in self.shapes)


@dataclass(frozen=True)
class Plan:
    """units  whose forms are chosen
    fixed     bytes of all else: vectors, and what a GGUF file lifted
    limit     bytes of the budget
    """

    units: tuple[Unit, ...]
    fixed: int
    limit: int
    parameters: int

    def size(self, forms: Mapping[str, Form]) -> int:
        """Bytes of the set with these forms of units, by their first matrix."""
        return self.fixed + sum(unit.bytes(forms[unit.names[0]]) for unit in self.units)


def plan(source: Source, config: DecoderConfig, scheme: Scheme, budget: Budget) -> Plan:
    """Raises InputError, with the least and the most that can be had, where the budget is out of reach."""
    entries = layouts(source, config, scheme)
    open_ = [name for name, entry in entries.items() if name not in config.vectors() and entry.origin != "lifted"]
    units = []
    for names in _groups(open_):
        shapes = tuple((entries[name].shape[0], entries[name].shape[1]) for name in names)
        units.append(Unit(names, shapes, _forms(names[0], shapes[0][1], budget)))
    fixed = sum(set_bytes(entry) for name, entry in entries.items() if name not in open_)
    parameters = sum(map(math.prod, config.shapes().values()))
    found = Plan(tuple(units), fixed, budget.bytes(parameters), parameters)
    least, most = (fixed + sum(pick(map(unit.bytes, unit.forms)) for unit in units) for pick in (min, max))
    if not least <= found.limit:
        raise _out_of_reach(budget, least, most, parameters)
    if found.limit > most and found.limit - most > most / 100:  # a rounded 8.06 is as good as it
        raise _out_of_reach(budget, least, most, parameters)
    return found


def _out_of_reach(budget: Budget, least: int, most: int, parameters: int) -> InputError:
    def told(size: int) -> str:
        return f"{size:,} bytes ({8 * size / parameters:.2f} bits a parameter)"

    option = "--target-bpw" if budget.size is None else "--target-size"
    return InputError(
        f"{option} is out of reach of this model and these options",
        got=told(budget.bytes(parameters)),
        expected=f"{told(least)} to {told(most)}",
    )


def _groups(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Names in units, in the order of their first matrices."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in names:
        layer, _, kind = name.rpartition(".")
        together = next((kinds[0] for kinds in TOGETHER if layer and kind in kinds), kind)
        found.setdefault((layer, together), []).append(name)
    return [tuple(unit) for unit in found.values()]


def _forms(name: str, width: int, budget: Budget) -> tuple[Form, ...]:
    table = name in ("embed", "head")
    bits = {"embed": budget.embedding, "head": budget.head}.get(name) if table else None
    if bits == 16:
        return ((16, 0),)
    groups = GROUPS if budget.group is None else (budget.group,)
    four = [layout(width, 4, group) for group in groups]
    wanted = [form for form in four if form[0] == 4] if bits != 8 else []
    if bits is None or bits == 8 or not wanted:
        wanted.append(layout(width, 8, 0))
    return tuple(dict.fromkeys(wanted))


def choose_forms(found: Plan, costs: Costs) -> dict[str, Form]:
    """The form of each matrix."""
    options = {
        unit.names[0]: [(unit.bytes(form), sum(costs[name][form] for name in unit.names), form) for form in unit.forms]
        for unit in found.units
    }
    forms = allocate(options, found.limit - found.fixed)
    return {name: forms[unit.names[0]] for unit in found.units for name in unit.names}


def foresee(source: Source, config: DecoderConfig, scheme: Scheme, budget: Budget | None) -> dict[str, Form]:
    """Forms as they would be where all parameters were alike: what sizes are foreseen by, before any is measured.
    None without a budget."""
    if budget is None:
        return {}
    found = plan(source, config, scheme, budget)
    costs: Costs = {}
    for unit in found.units:
        for name, shape in zip(unit.names, unit.shapes, strict=True):
            costs[name] = {(b, g): math.prod(shape) * 4.0**-b * (1 + math.log2(g or 1) / 100) for b, g in unit.forms}
    return choose_forms(found, costs)


def foreseen(checkpoint: Checkpoint, scheme: Scheme, budget: Budget | None) -> dict[str, Entry]:
    """The layout of each tensor in the set, as `foresee` has it."""
    config = checkpoint.config
    return layouts(checkpoint, config, scheme, foresee(checkpoint, config, scheme, budget))


def check_forms(forms: Mapping[str, Form], config: DecoderConfig) -> None:
    """Raises InputError where a form is none that all targets hold."""
    shapes, plain = config.shapes(), config.vectors()
    for name, (bits, group) in forms.items():
        known = name in shapes and name not in plain
        if not known or (bits, group) not in ((16, 0), *(layout(shapes[name][1], b, group) for b in (4, 8))):
            raise InputError("a form of a matrix cannot be used", got=f"{name[:60]}: {bits} bits, groups of {group}")
