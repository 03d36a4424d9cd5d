"""coremltools without the packages that it looks for and this target has no use for.

Importing them takes two thirds of `import coremltools`: scikit-learn for another kind of model, executorch, torchao and
transformers for its converter of PyTorch models, which is not the one used here. They are hidden while it is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

UNUSED = ("sklearn", "xgboost", "libsvm", "tensorflow", "executorch", "torchao", "transformers")


@contextmanager
def hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Inside, packages that are not imported yet cannot be."""
    names = tuple(name for name in names if name not in sys.modules)
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]  # None: as if it were not installed
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


with hidden(UNUSED):
    import coremltools as ct
    from coremltools.converters.mil.converter import mil_convert
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program, Var, types

__all__ = ["Function", "Program", "Var", "ct", "mb", "mil_convert", "types"]
