"""An export before the work: what it writes, what it takes, and whether a device can hold it.

    sizes.py    bytes of what is written
    run.py      memory of an open artifact
    costs.py    time and memory of the steps
    speed.py    how fast this machine is
    devices.py  devices, with the sources of their limits
    judge.py    whether one fits, and what would make it fit
    step.py     all of it, from a checkpoint's headers and side files

Constants that were measured stand beside the command that measured them. `smolship.tools.forecast_check` compares all
of it with exports of other shapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smolship.export.forecast.asking import forecast

__all__ = ["forecast"]


def __getattr__(name: str) -> Any:
    # On demand: the step's process needs no more than its own module.
    if name == "forecast":
        from smolship.export.forecast.asking import forecast

        return forecast
    raise AttributeError(name)
