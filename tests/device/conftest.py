"""The emulated board, started once a session for each processor that tests ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.device.board import Board, board
from tests.device.board_root import wheelhouse


@pytest.fixture(scope="session")
def boards() -> Iterator[Callable[[str], Board]]:
    """boards("cortex-a72") -> a running board, shared: tests use folders of their own in its home."""
    started: dict[str, Board] = {}
    with ExitStack() as stack:

        def get(cpu: str) -> Board:
            if cpu not in started:
                started[cpu] = stack.enter_context(board(cpu))
            return started[cpu]

        yield get


@pytest.fixture(scope="session")
def pi5(boards: Callable[[str], Board]) -> Board:
    return boards("cortex-a76")


@pytest.fixture(scope="session")
def board_wheels() -> Path:
    """A folder of aarch64 wheels: numpy, onnxruntime, and what they and llama-cpp-python import."""
    return wheelhouse()
