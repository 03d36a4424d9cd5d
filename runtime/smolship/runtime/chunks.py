"""How many tokens of a prompt are run at once.

A prompt that is run whole needs memory for all its activations, and where an engine holds the scores of attention,
[heads, tokens, context], for the square of its length. In chunks of a fixed length both grow with the context alone;
where the context is long, shorter chunks keep the scores within a fixed size.
"""

from __future__ import annotations

SCORES = 1 << 28  # bytes of one layer's scores, with the copies of them that an engine makes on the way
UNIT = 16  # tokens; shorter chunks save little, and cost each time what any call costs


def chunk_for(most: int, heads: int, context: int, size: int) -> int:
    """Tokens of a call: `most`, or as many as keep their scores within SCORES, a multiple of UNIT. `size` is the bytes
    of a score, its copies included."""
    fitting = SCORES // (heads * context * size) // UNIT * UNIT
    return min(most, context, max(fitting, UNIT))
