"""The gate of every export: our decoder says what the original says."""

from __future__ import annotations

from smolship.runtime.errors import GateError
from smolship.runtime.judge import translation_checks
from smolship.runtime.probes import Probes


def check_translation(probes: Probes) -> None:
    """Raise GateError where our decoder differs from the original: no target could mend that."""
    for check in translation_checks(probes):
        if not check.passed:
            where = f"{check.what}{' at ' if check.at else ''}{check.at}"
            note = f"; {check.note}" if check.note else ""
            raise GateError(
                "our decoder does not say what the original says, so that this bundle would be wrong",
                got=f"a mean KL of {check.kl:.3g} over {check.positions:,} positions ({where}){note}",
                expected=f"at most {check.bound:.3g}: rounding alone",
                todo="report it with the checkpoint's config.json; nothing was written, an older bundle is as it was",
            )
