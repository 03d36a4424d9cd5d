"""Writes cases.json.gz: templates beside those of tests/vectors/apps, with what Python renders.

The templates are the lines of statements.txt, and values crossed with filters, tests, methods and operators, of which a
fixed sample is kept. Each case: {template, program, expected | error: true}; the context stands once, before them.

    PYTHONPATH=export:runtime python android_demo/core/src/test/templates/make.py
"""

from __future__ import annotations

import copy
import gzip
import json
import random
import warnings
from pathlib import Path
from typing import Any

from smolship.export.portable import compile_template
from smolship.runtime.errors import InputError
from smolship.runtime.template_worker import environment

HERE = Path(__file__).parent
FILE = HERE / "cases.json.gz"
DATE = "2025-03-07"
SAMPLE = 1200  # of the crossed templates
CONTEXT: dict[str, Any] = {
    "d": {"a": 1, "b": [2, "x"], "n": None},
    "sorted": {"z": 1, "B": 2, "a": 3.5},
    "u8": "é日本👍",
    "people": [
        {"n": "Bo", "age": 9, "t": {"x": 1}},
        {"n": "al", "age": 30, "t": {"x": None}},
        {"n": "Al", "age": 9},
        {"n": "zed", "age": 0.5},
    ],
    "messages": [
        {"role": "system", "content": "You are X."},
        {"role": "user", "content": "Hi\n there "},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello", "tool_calls": [{"function": {"name": "f"}}]},
    ],
    "text": "The quick-brown fox -- jumped over\nthe lazy dog's back; well-known e-mail.",
    "reals": [0.1, 1e16, 1e-7, -0.0, 2.5, 1e22, 123456789.125],
    "tools": None,
}

VALUES = """
'hello World' | '' | '<b>&"x' | ' a  b\\n c ' | u8 | '12' | '-3.7' | 0 | 1 | -7 | 3.0 | -2.5 | 1e16 | 1e-7
12345678901234567890 | true | none | nothing | [] | [1,2,3] | ['b','A','a','B'] | [1,'a',none] | [[1,2],[3]] | (1,)
{} | d | sorted | people | range(4) | d.items() | d.keys() | namespace(a=1) | ('x<'|e) | text | reals | 'a,b,,c'
"""
FILTERS = """
abs | attr('items') is callable | batch(2)|list | batch(2,'-')|list | capitalize | center(9) ~ '|' | count | d('D')
default(5,boolean=true) | dictsort | dictsort(by='value',reverse=true) | escape ~ '<' | filesizeformat | first | last
float(1.5) | format('a') | groupby('n') | indent(2,true) | indent('>',blank=true) | int | int(9,16) | join(',') | list
join('-',attribute='n') | lower | items|list | map('upper')|list | map(attribute='n',default='?')|list | min
max(true) | min(attribute='age') | reject('odd')|list | rejectattr('n')|list | replace('a','b') | replace('','-',2)
reverse|list | round | round(1) | round(2,'ceil') | round(-1) | round(method='floor') | safe ~ 1
select('number')|list | slice(2)|list | selectattr('age','lessthan',20)|list | slice(3,'-')|list | sort | sort(true)
sort(attribute='age,n')|list | string | striptags | sum | sum(start=10) | sum(attribute='age') | title | tojson
tojson(indent=2) | tojson(ensure_ascii=true) | tojson(sort_keys=true,separators=(',',':')) | trim('ah ') | truncate(5)
truncate(8,true,'..',0) | unique|list | upper | urlencode | wordcount | wordwrap(10) | wordwrap(5,false)
wordwrap(6,break_on_hyphens=false) | xmlattr
"""
TESTS = """
odd | divisibleby(2) | defined | none | boolean | true | integer | float | number | string | mapping | sequence
iterable | callable | escaped | lower | upper | filter | sameas(none) | in([1,'a',none,2.0]) | eq(1) | ne('x') | gt(0)
le('b')
"""
TEXTS = """
'hello World' | '' | 'ß ﬁ ŉ İı ΑΣ ǆ' | u8 | '  x\\ty\\r\\nz  ' | '+12' | 'a\\x1cb\\u2028c\\x85' | '²①½५' | 'ab_1'
text | 'x<'|e | 'ΣΑΣ ΌΣΟΣ. Σ'
"""
METHODS = """
capitalize() | casefold() | center(9,'*') | count('l') | count('') | count('l',2,4) | endswith(('x','d'))
expandtabs(4) | find('l',4) | find('',20) | rfind('l') | index('l') | isalnum() | isalpha() | isdecimal() | isdigit()
isidentifier() | islower() | isnumeric() | isprintable() | isspace() | istitle() | isupper() | join(['a','b'])
ljust(8,'.') | lower() | lstrip('h ') | partition('l') | rpartition('l') | removeprefix('he') | replace('','.',2)
rjust(8) | rsplit(none,1) | rsplit('l',1) | split() | split('l') | split(none,1) | split(sep=',') | splitlines(true)
startswith('e',1) | swapcase() | strip() | rstrip('d\\n ') | title() | upper() | zfill(8)
translate({108:'L',111:none}) | foo | split('') | join([1])
"""
OPERANDS = """
0 | -7 | 3.0 | -2.5 | true | none | nothing | 'a' | 'b%s' | [1] | (1,2) | {'a':1} | 12345678901234567890 | 1e16
range(3) | 'x<'|e | 2
"""
OPERATORS = "+ | - | * | / | // | % | ~ | == | != | < | >= | in | not in | and | or"
ELEMENTS = "[0] | [-1] | ['a'] | .a | [1:] | [::-1] | [:2] | [none] | [5] | ['items'] | [3::-2] | [1.0]"
FORMATS = """
{} | {0}{0} | {a} | {!r} | {!s:>5} | {:{w}} | {{}} | { | {:^9} | {:*<6} | {:.2f} | {:08.3f} | {:,} | {:+d} | {:#x}
{:e} | {:g} | {:%} | {:c} | {0[1]} | {:.3}
"""
PERCENTS = """
%s | %d | %r | %5s| | %-5s| | %.2s | %c | %% | %.3f | %x | %e | %+d | %05d | %(a)s | %s %s | %g | %#o | %*d | %q
"""
FORMATTED = "'ab' | 5 | 'é' | [1,2] | 2.5 | -1234567 | true | none | 1e20 | (5,42) | {'a':1}"


def rows(text: str) -> list[str]:
    return [each.strip() for line in text.strip().split("\n") for each in line.split(" | ")]


def crossed() -> list[str]:
    values, texts, operands, formatted = map(rows, (VALUES, TEXTS, OPERANDS, FORMATTED))
    found = [f"{{{{ ({value})|{name} }}}}" for value in values for name in rows(FILTERS)]
    found += [f"{{{{ ({value}) is {name} }}}}" for value in values for name in rows(TESTS)]
    found += [f"{{{{ ({value}){element} }}}}" for value in values for element in rows(ELEMENTS)]
    found += [f"{{{{ ({text}).{method} }}}}" for text in texts for method in rows(METHODS)]
    found += [f"{{{{ ({a}) {op} ({b}) }}}}" for a in operands for op in rows(OPERATORS) for b in operands]
    found += [f"{{{{ '{form}'.format({value}, w=7, a=1) }}}}" for form in rows(FORMATS) for value in formatted]
    found += [f"{{{{ '{form}' % ({value}) }}}}" for form in rows(PERCENTS) for value in formatted]
    return random.Random(16).sample(found, SAMPLE)


def case(template: str) -> dict[str, Any] | None:
    """What the core's tests read of a template; None for one that the export refuses, or whose text is by chance."""
    try:
        found: dict[str, Any] = {"template": template, "program": compile_template(template)}
    except InputError:
        return None
    try:
        found["expected"] = environment(DATE).from_string(template).render(copy.deepcopy(CONTEXT))
    except Exception:
        found["error"] = True
    return None if " at 0x" in found.get("expected", "") else found


def content() -> bytes:
    templates = [json.loads(line) for line in (HERE / "statements.txt").read_text().splitlines()] + crossed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # Python's, of constants that are subscribed
        cases = [found for found in map(case, templates) if found]
    made = {"context": CONTEXT, "date": DATE, "cases": cases}
    return gzip.compress(json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode(), 9, mtime=0)


if __name__ == "__main__":
    FILE.write_bytes(content())
