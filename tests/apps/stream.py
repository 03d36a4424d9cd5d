"""stream.json: text as tokenizer.TokenStream gives it while tokens come in, of a byte-level tokenizer.

tokens  the bytes of each token, in hex
pieces  what each push returns
rest    what finish returns

Bytes that are not UTF-8 become U+FFFD, one for each maximal part of a character as Unicode (3.9, table 3-8) has it. A
piece never waits for bytes that cannot belong to its character any more.
"""

from __future__ import annotations

import random
from typing import Any

import tokenizers

from smolship.runtime.tokenizer import Tokenizer, byte_of_character

TEXT = "Zoë naïve — 日本語 👍🏽 👩‍👩‍👧 é e\u0301 \r\n\t\0 العربية 🇩🇪 ﬁn 𐍈\U0010ffff"
GIVEN = {
    "ascii": ["48656c6c6f", "20", "776f726c64"],
    "two bytes in two tokens": ["c3", "a9"],
    "three bytes in three tokens": ["e6", "97", "a5"],
    "four bytes in two tokens": ["f09f", "918d"],
    "four bytes in four tokens": ["f0", "9f", "91", "8d"],
    "a character and the beginning of the next": ["61e6", "97a5e6", "9cac"],
    "empty tokens between": ["f0", "", "9f", "", "918d", ""],
    "a character that never ends": ["61", "f09f91"],
    "two that never end": ["e697", "e6"],
    "an end without beginning": ["80", "61", "bfbf"],
    "a beginning, then a letter": ["e282", "41"],
    "a beginning, then another beginning": ["f09f", "f09f918d"],
    "a long beginning, then a letter": ["f09f91", "41"],
    "bytes that UTF-8 never has": ["c0af", "f5", "ff", "fe", "c1"],
    "overlong": ["e0", "80", "af", "f0", "80", "80", "af"],
    "half of a surrogate pair": ["ed", "a0", "80", "ed9fbf"],
    "beyond Unicode": ["f4", "90", "80", "80", "f48fbfbf"],
    "a byte order mark is a character": ["efbbbf", "61", "efbb", "bf"],
    "NUL": ["00", "6100", "62"],
    "line ends": ["0d", "0a", "0d0a", "e280a8"],
    "a letter and its accent apart": ["65", "cc81", "cc", "81"],
    "a family of emoji": ["f09f91a9e2", "808d", "f09f91a9e2808df0", "9f91a7"],
    "nothing": [],
}


def cases() -> list[dict[str, Any]]:
    found = [case(name, [bytes.fromhex(token) for token in tokens]) for name, tokens in GIVEN.items()]
    rng = random.Random(16)
    for i in range(20):
        found.append(case(f"a text cut anywhere {i}", _cut(TEXT.encode(), rng)))
    for i in range(20):
        wild = bytes(rng.choice(b"\x41\x80\x8d\x91\x9f\xa0\xbf\xc3\xe2\xed\xf0\xf4\xff") for _ in range(24))
        found.append(case(f"bytes that are no text {i}", _cut(wild, rng)))
    return found


def case(name: str, tokens: list[bytes]) -> dict[str, Any]:
    spelled = {byte: character for character, byte in byte_of_character().items()}
    spellings = ["".join(spelled[byte] for byte in token) for token in tokens]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(["[UNK]", *spellings]))}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
    inner.decoder = tokenizers.decoders.ByteLevel()
    tokenizer = Tokenizer(inner.to_str().encode())
    ids, stream = [vocabulary[token] for token in spellings], tokenizer.stream()
    pieces, rest = [stream.push(token) for token in ids], stream.finish()
    assert "".join(pieces) + rest == tokenizer.decode(ids) == b"".join(tokens).decode(errors="replace"), name
    return {"name": name, "tokens": [token.hex() for token in tokens], "pieces": pieces, "rest": rest}


def _cut(data: bytes, rng: random.Random) -> list[bytes]:
    pieces = []
    while data:
        size = rng.choice([1, 1, 2, 3, 5])
        pieces.append(data[:size])
        data = data[size:]
    return pieces
