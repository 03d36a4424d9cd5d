"""A token that a GGUF vocabulary holds twice is found in one pass, wherever it stands."""

from __future__ import annotations

import time

import pytest

from smolship.export.checkpoints.gguf_tokenizer import tokenizer_files
from smolship.runtime.errors import InputError

MANY = [f"t{i}" for i in range(200_000)]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([*MANY, "t199999"], "'t199999' as 199,999 and 200,000"),
        ([*MANY, "t0"], "'t0' as 0 and 200,000"),
        (["b", "a", "c", "a"], "'a' as 1 and 3"),
        (["x", "", "[EMPTY_1]"], "EMPTY_1.* as 1 and 2"),
    ],
)
def test_a_repeated_token_is_named_with_both_places(tokens: list[str], message: str) -> None:
    start = time.process_time()
    with pytest.raises(InputError, match=message):
        tokenizer_files({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": tokens}, "x.gguf")
    assert time.process_time() - start < 5
