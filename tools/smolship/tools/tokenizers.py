"""Do the tokenizers of llama.cpp and of the phones' runtimes give the ids that the model's own does?

    python -P -m smolship.tools.tokenizers BUNDLE

llama.cpp's is made of metadata that we wrote: each of its mismatches is an error of ours, and the exit code is 1.
(Where an export said that it cuts some text otherwise, so much holds of ASCII.) Those of ExecuTorch
(pytorch_tokenizers) and onnxruntime-genai read tokenizer.json by themselves: theirs are listed only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from smolship.export.targets.gguf.vocab import differences
from smolship.runtime import open_bundle
from smolship.runtime.bundle import Bundle
from smolship.runtime.engines.gguf import GgufTokenizer
from smolship.runtime.errors import InputError, SetupError, clip, missing_engine
from smolship.runtime.files import read_bytes
from smolship.runtime.hard_strings import hard_strings
from smolship.tools.console import Screen, begin, exit_code

Encode = Callable[[str], Sequence[int]]
WHOLE_SEARCH = 48  # characters: all substrings of so short an example are tried
EXAMPLES = 5  # kept of each tokenizer


@dataclass(frozen=True)
class Row:
    """One tokenizer's agreement with the model's own. `examples` are the shortest parts of the strings on which they
    differ, shortest first, each with the model's own ids and theirs."""

    tokenizer: str
    strings: int
    mismatches: int
    judged: bool
    examples: tuple[tuple[str, tuple[int, ...], tuple[int, ...] | None], ...] = ()
    unavailable: str = ""

    @property
    def passed(self) -> bool:
        return not (self.judged and self.mismatches)


def compare(name: str, ours: Encode, theirs: Encode, strings: Sequence[str], judged: bool = False) -> Row:
    """`theirs` against `ours` on all strings; a tokenizer that fails on a string has no ids for it."""

    def differ(text: str) -> bool:
        return _ids(theirs, text) != tuple(ours(text))

    wrong = [text for text in strings if differ(text)]
    parts = sorted({shortest(text, differ) for text in wrong}, key=lambda text: (len(text), text))
    examples = tuple((text, tuple(ours(text)), _ids(theirs, text)) for text in parts[:EXAMPLES])
    return Row(name, len(strings), len(wrong), judged, examples)


def _ids(encode: Encode, text: str) -> tuple[int, ...] | None:
    try:
        return tuple(encode(text))
    except (RuntimeError, ValueError):
        return None


def shortest(text: str, fails: Callable[[str], bool]) -> str:
    """The shortest part of `text` that fails: cut at both ends as long as it does, then searched whole."""
    for step in (len(text) // 2, len(text) // 4, len(text) // 8, 1):
        while step and (part := next((p for p in (text[step:], text[:-step]) if p and fails(p)), None)):
            text = part
    if len(text) <= WHOLE_SEARCH:
        for size in range(1, len(text)):
            for start in range(len(text) - size + 1):
                if fails(part := text[start : start + size]):
                    return part
    return text


def compare_all(bundle: Bundle) -> list[Row]:
    """llama.cpp's tokenizer where the bundle holds a GGUF file, and those that its other artifacts are run with."""
    tokenizer = bundle.tokenizer
    try:
        template = bundle.template
    except InputError:  # a base model
        template = None
    strings = hard_strings(tokenizer, template)
    if template is not None:
        template.close()
    rows = []
    for entry in bundle.manifest.targets.values():
        if entry.engine not in MAKERS:
            continue
        folder, judged = bundle.path / entry.folder, entry.engine == "gguf"
        bundle.verify(f"{entry.folder}/")
        try:
            theirs = MAKERS[entry.engine](bundle.path, folder)
        except SetupError as error:
            if judged:
                raise
            rows.append(Row(entry.engine, 0, 0, False, unavailable=str(error).splitlines()[0]))
            continue
        said = judged and differences({"tokenizer.json": read_bytes(bundle.path / "tokenizer.json", "tokenizer.json")})
        for label, special, encode in theirs:
            ours = partial(tokenizer.encode, special=special)
            if said:
                rows.append(compare(f"{label}, beyond ASCII", ours, encode, [s for s in strings if not s.isascii()]))
            rows.append(compare(label, ours, encode, [s for s in strings if not said or s.isascii()], judged))
    if not rows:
        raise InputError(
            "no target of the bundle has a tokenizer of its own",
            got=", ".join(bundle.manifest.targets),
            expected="one of " + ", ".join(MAKERS),
        )
    return rows


# (name, whether it adds what the model wants around a text, its ids of a text)
Maker = Callable[[Path, Path], list[tuple[str, bool, Encode]]]


def _llama(bundle: Path, folder: Path) -> list[tuple[str, bool, Encode]]:
    tokenizer = GgufTokenizer(folder / "model.gguf")
    return [
        ("llama.cpp", True, tokenizer.encode),
        ("llama.cpp, nothing added", False, partial(tokenizer.encode, special=False)),
    ]


def _executorch(bundle: Path, folder: Path) -> list[tuple[str, bool, Encode]]:
    """What ExecuTorch's runners read tokenizer.json with."""
    try:
        from pytorch_tokenizers import CppHFTokenizer
    except ImportError as error:
        raise missing_engine("pytorch_tokenizers", "executorch", error) from None
    tokenizer = CppHFTokenizer()
    tokenizer.load(str(bundle / "tokenizer.json"))
    return [("pytorch_tokenizers (ExecuTorch)", False, lambda text: tokenizer.encode(text, 0, 0))]


def _genai(bundle: Path, folder: Path) -> list[tuple[str, bool, Encode]]:
    try:
        import onnxruntime_genai
    except ImportError as error:
        raise missing_engine("onnxruntime_genai", "genai", error) from None
    tokenizer = onnxruntime_genai.Tokenizer(onnxruntime_genai.Model(str(folder)))
    return [("onnxruntime-genai", True, lambda text: tokenizer.encode(text).tolist())]


MAKERS: dict[str, Maker] = {"executorch": _executorch, "gguf": _llama, "onnx": _genai}  # by engine


def table(rows: Sequence[Row]) -> Table:
    made = Table(box=box.SIMPLE_HEAD, title="Token ids against the model's own tokenizer", title_justify="left")
    for column in ("tokenizer", "strings", "mismatches", "smallest examples", "ours", "theirs", ""):
        made.add_column(column, justify="right" if column in ("strings", "mismatches") else "left")
    for row in rows:
        verdict = row.unavailable or ("listed" if not row.judged else "ok" if row.passed else "FAIL")
        columns = list(zip(*(map(_cell, example) for example in row.examples), strict=True)) or [(), (), ()]
        made.add_row(
            row.tokenizer,
            f"{row.strings:,}",
            f"{row.mismatches:,}",
            *(Text("\n".join(cells), no_wrap=True) for cells in columns),
            verdict,
        )
    return made


def _cell(value: str | tuple[int, ...] | None) -> str:
    return clip(ascii(value) if isinstance(value, str) else "refused" if value is None else list(value), 40)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    begin()

    def command() -> int:
        rows = compare_all(open_bundle(arguments[0]))
        Screen().print(table(rows))
        return 0 if all(row.passed for row in rows) else 1

    return exit_code(command, Screen(stderr=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
