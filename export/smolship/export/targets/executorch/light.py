"""ExecuTorch's schemas and serializers without its compiler, which this target has no use for.

`import executorch.exir` takes three and a half seconds, of which these modules need a hundredth: the packages that they
lie in import the compiler, and with it torch's inductor. Those packages run their own code later, if ever.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

COMPILER = ("executorch.exir", "executorch.exir._serialize", "executorch.backends.xnnpack")


class Late(ModuleType):
    """A package whose modules can be imported, and which runs its own code when something else is asked of it."""

    waits = True  # while it is set, nothing runs it

    def __getattr__(self, name: str) -> Any:
        if Late.waits or name.startswith("__") or self.__spec__ is None or self.__spec__.loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


@contextmanager
def late(names: tuple[str, ...]) -> Iterator[None]:
    """Inside, packages that are not imported yet do not run their own code."""
    Late.waits = True
    try:
        for name in names:
            if name not in sys.modules:
                spec = find_spec(name)
                if spec is None:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
                sys.modules[name] = module = module_from_spec(spec)
                module.__class__ = Late
        yield
    finally:
        Late.waits = False


with late(COMPILER):
    from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as xnn
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import serialize_xnnpack_binary
    from executorch.backends.xnnpack.utils import xnnpack_constants as constants
    from executorch.exir import schema as et
    from executorch.exir._serialize._flatbuffer_program import _program_to_flatbuffer as program_to_flatbuffer
    from executorch.exir.scalar_type import ScalarType

__all__ = ["ScalarType", "constants", "et", "program_to_flatbuffer", "serialize_xnnpack_binary", "xnn"]
