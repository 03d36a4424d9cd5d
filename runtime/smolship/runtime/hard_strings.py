"""Strings on which tokenizers part ways, over a regex, a Unicode table or a special token."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from smolship.runtime.errors import InputError
from smolship.runtime.template import ChatTemplate
from smolship.runtime.tokenizer import Tokenizer

PLAIN = (
    "",
    " ",
    "  ",
    "a",
    "Hello, world!",
    " leading",
    "trailing ",
    "  both  ",
    "two  spaces",
    "three   spaces   here",
    "The quick brown fox jumps over the lazy dog.",
    "ALL CAPS AND camelCase and snake_case and kebab-case",
)
SPACES = (
    "\t",
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "\n\n\n\n",
    " \n ",
    "\n \n",
    "a\n",
    "a\n\n",
    "a \n b",
    "\ta\tb\t",
    "    indented",
    "\t\tindented",
    "x" + " " * 7 + "y",
    "x" + " " * 63 + "y",
    " " * 64,
    " " * 65,
    "\t" * 9,
    "a\r\nb\r\n\r\nc",
    "\x0b",
    "\x0c",
    "a\u00a0b",
    "a\u2003b\u2009c",
    "\u3000全角\u3000",
    "\u200b",
    "a\u200bb",
    "\ufeffbom",
    "a\u2028b\u2029c",
    "\x85",
    "a \t \n \t b",
    "line \nline  \n  line",
    "!\n",
    "!\n\n",
    "...\n  ...",
    " \u00a0 ",
    "\u1680",
    "\u180e",
)
DIGITS = (
    "0",
    "7",
    "42",
    "123",
    "1234",
    "12345",
    "1234567890",
    "3.14159265358979",
    "1,234,567.89",
    "1e-10",
    "0x1F",
    "2024-02-29",
    "12:34:56",
    "v1.2.3",
    "a1b2c3",
    "1a2b3c",
    " 1 22 333 4444 55555",
    "№5",
    "٣٤٥",
    "१२३",
    "１２３",
    "²³½¾",
    "Ⅷ",
    "①②③",
    "𝟙𝟚𝟛",
    "一二三",
    "1st 2nd 3rd",
    "100%",
    "$1,000",
    "-5",
    "+5",
    "1" * 30,
    "৪৫",
    "๑๒",
    "〇",
)
CONTRACTIONS = (
    "I'm",
    "don't",
    "we've they'll he'd she's you're",
    "I'M",
    "DON'T",
    "WE'VE THEY'LL HE'D SHE'S YOU'RE",
    "'s",
    "'S",
    "'sup",
    "it’s",
    "rock 'n' roll",
    "'tis",
    "o'clock",
    "''s",
    "'''",
    "l'été",
    "s's's",
    "'ll",
    " 'll",
    "a'lla",
    "'re're",
    "'ſ",
    "I'ſ",
    "'ve'VE'vE",
)
UNICODE = (
    "é",
    "e\u0301",
    "ñ n\u0303",
    "Å A\u030a \u212b",
    "ẛ̣",
    "Zalgo Z\u0351\u036b\u0343a\u0363\u0348l\u036fg\u0322o\u0321",
    "ﬁ ﬂ ﬃ",
    "Straße STRASSE ẞ",
    "İstanbul ıI",
    "Ελληνικά",
    "Русский язык",
    "українська ґ",
    "中文分词测试",
    "繁體中文",
    "日本語のテスト",
    "カタカナ ﾊﾝｶｸ",
    "한국어 테스트",
    "\u1112\u1161\u11ab",
    "हिन्दी परीक्षण",
    "বাংলা",
    "தமிழ்",
    "ไทยทดสอบ",
    "ភាសាខ្មែរ",
    "မြန်မာ",
    "ልሳን",
    "ქართული",
    "Հայերեն",
    "עברית בְּרֵאשִׁית",
    "العربية",
    "مَرْحَبًا",
    "\u202bRTL\u202c",
    "abc \u200fעב\u200e 123",
    "فارسی می\u200cخواهم",
    "Tiếng Việt đặc biệt",
    "ʻOkina",
    "𝕳𝖊𝖑𝖑𝖔",
    "𐍈𐌰",
    "𠀀𠀁",
    "🙂",
    "👍🏽",
    "👨‍👩‍👧‍👦",
    "🏳️‍🌈",
    "🇩🇪🇫🇷",
    "1️⃣",
    "❤️",
    "❤",
    "☃",
    "a🙂b",
    "🙂 🙂",
    "🧑🏿‍🚀!",
    "\U0001fae8",
    "™©®",
    "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋",
    "α∧β≠γ",
    "←↑→↓",
    "█▓▒░",
    "…—–‘’“”",
    "«»",
    "¿¡",
    "€£¥₿",
    "\ue000",
    "\ufffd",
    "\u0378",
    "\U000e0001",
    "\U0010ffff",
    "\x00",
    "\x01\x1f",
    "\x7f",
    "a\x00b",
    "ǅ ǈ",
    "ªº",
    "ˈaɪpiːˈeɪ",
    "\u0301",
    " \u0301",
    "\u0345a",
    "\u20dd",
    "ꙮ",
    "ⴰⵎⴰⵣⵉⵖ",
    "ᏣᎳᎩ Ꭰꭰ",
    "Ⓐⓑ",
    "〱〲",
    "ー",
    "々",
    "\u302a",
    "\U0001e900\U0001e922",
    "\ua7ff\ua7f5",
    "\U00016fe4",
    "\u08c8",
    "\U00010d4a\U0001e5d0\u1c89",
)
CODE = (
    "def f(x):\n    return x + 1\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}",
    "#include <stdio.h>",
    "x = {'a': [1, 2]}",
    '{"key": "va\\"lue", "n": -1.5e3}',
    "SELECT * FROM t WHERE a >= 10 AND b <> 'x';",
    '<div class="a">&nbsp;</div>',
    "a->b::c",
    "!!!???",
    "if __name__ == '__main__':",
    "$HOME/.config/*.json",
    "C:\\Users\\name\\",
    "https://example.org/a?b=c&d=%20#e",
    "user@example.org",
    "#!/bin/sh\nset -eu\n",
    "λx.x",
    "a&&b||!c",
    "/* c */ // d",
    "```python\nprint('hi')\n```",
    "- [ ] item\n  - sub\n",
    "| a | b |\n|---|---|\n",
    "\\frac{a}{b} \\sum_{i=0}^n",
    "==== ----",
    'f"{x!r:>{w}}"',
    "@@ -1,3 +1,4 @@\n-a\n+b",
    "x**2//3%4",
    '"""doc"""',
    "()[]{}<>",
    "a.b.c()",
    "    \n    \n\tx",
    "foo  # comment",
    "\n    def g(self):\n        pass\n\n\n",
    "0b1010_1010",
    "1_000_000",
    "__init__",
    "._-",
    ";;",
    "a;\n\n}",
)
NEARLY_SPECIAL = (
    "<|",
    "|>",
    "<|im_start",
    "<|im_start|",
    "< |im_start|>",
    "<|IM_START|>",
    "<s",
    "</s",
    "<unk",
    "<think",
    "[INST]",
    "<0x0A>",
    "▁",
    "▁a",
)

CONVERSATION = [
    {"role": "system", "content": "You are terse."},
    {"role": "user", "content": "What is 12 * 34?"},
    {"role": "assistant", "content": "408"},
    {"role": "user", "content": "Write it in words.\n\nThen say `done`."},
]
MODES: tuple[dict[str, Any], ...] = ({}, {"enable_thinking": True}, {"enable_thinking": False})
RANDOM = 400  # strings of random characters
ALPHABETS = (
    "abcXYZ 019 .,'\n\t",
    "'sSdDmMtTlLvVrReE ",
    " \t\n\r\u00a0\u3000a1.",
    "0123456789٣१１²",
    "éñüßçøåæœ ",
    "中文日本語한국어。、 ",
    "אבגدهوَُ\u200f 12",
    "🙂👍🏽‍❤️🇩🇪 ",
    "(){}[]<>;:=+-*/\\\"'`_#@!$%^&|~? \n",
    "ab\u0301\u0308\u0323 \u093e\u0940\u094d",
)


def hard_strings(
    tokenizer: Tokenizer, template: ChatTemplate | None, seed: int = 0, most_added: int | None = None
) -> list[str]:
    """All of them, each once, the model's own special tokens and chat turns among them. Where `most_added` is given, of
    more added tokens than that, so many spread over them all."""
    strings = [*PLAIN, *SPACES, *DIGITS, *CONTRACTIONS, *UNICODE, *CODE, *NEARLY_SPECIAL, *_mixed(seed)]
    added = tokenizer.added_tokens()
    step = -(-len(added) // most_added) if most_added and added else 1
    for token in added[::step]:
        strings += [
            token,
            f" {token} ",
            f"a{token}b",
            f"{token}{token}",
            f"{token}\n 1",
            f"<{token}>",
            token[:-1],
            token[1:],
        ]
    if template is not None:
        strings += _turns(template)
    return list(dict.fromkeys(strings))


def _mixed(seed: int) -> Iterator[str]:
    """Random strings out of one alphabet or two, always the same."""
    choose = random.Random(seed)
    for _ in range(RANDOM):
        letters = "".join(choose.sample(ALPHABETS, choose.choice((1, 2))))
        yield "".join(choose.choices(letters, k=choose.randint(1, 24)))


def _turns(template: ChatTemplate) -> Iterator[str]:
    """Conversations as the template renders them, with thinking and without, as far as it takes them."""
    for mode in MODES:
        for flag in ("", "/think", "/no_think"):
            start = {"role": "system", "content": f"{CONVERSATION[0]['content']} {flag}".strip()}
            for messages in (CONVERSATION[1:2], [start, *CONVERSATION[1:]]):
                try:
                    yield template.render(messages, **mode)
                except InputError:  # a template may refuse a system prompt, or roles in that order
                    continue
