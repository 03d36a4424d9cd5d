"""docs/apps.md: what it shows is what the code gives, and its table of nodes is complete."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import nodes

from smolship.export.portable import KNOWN, RENAMED, compile_template
from smolship.runtime.generate import Sampling
from smolship.runtime.plan import Plan
from smolship.runtime.records import read_record
from smolship.runtime.template import ChatTemplate
from tests.apps import manifest, plan, sampling
from tests.apps.vectors import FOLDER, MAKERS

PAGE = (Path(__file__).parents[2] / "docs" / "apps.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """From a heading to the next."""
    return re.split(r"^#+ ", PAGE.split(f" {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)\n```", text, re.DOTALL | re.MULTILINE)


def bare(value: Any) -> Any:
    """Without lines and contexts."""
    if isinstance(value, dict):
        return {key: bare(one) for key, one in value.items() if key not in ("line", "ctx")}
    return [bare(one) for one in value] if isinstance(value, list) else value


def test_the_template() -> None:
    text = section("A template, rendered")
    ((source,), (body,), (rendered,)) = (blocks(text, language) for language in ("jinja", "json", "text"))
    assert bare(compile_template(source)["body"]) == json.loads(body)
    (messages,) = re.findall(r"`(\[\{\"role\".*?\])`", text)
    template = ChatTemplate(source)
    assert template.render(json.loads(messages)) == rendered + "\n"
    template.close()


def test_every_node_is_listed_with_its_fields() -> None:
    table = section("template.json").split("| | nodes |")[1].split("\n\n")[0]
    listed: dict[str, str] = {}
    for names, fields in re.findall(r"((?:[A-Z]\w* )*[A-Z]\w*) ?(?:\(([^)]*)\))?", table):
        *plain, last = names.split()
        shared = fields if names.startswith(("And", "Not")) else ""
        listed |= dict.fromkeys(plain, shared) | {last: fields}
    assert set(listed) == KNOWN | {"Generation"} and f"of the {len(listed)} kinds" in " ".join(PAGE.split())
    listed["Test"] = listed["Filter"]
    for name in KNOWN:
        fields = ", ".join(RENAMED.get(field, field) for field in getattr(nodes, name).fields)
        assert listed[name] == fields, name


def test_how_many_kinds_of_node_the_templates_of_models_have() -> None:
    def kinds(value: Any) -> set[str]:
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        own = {value["node"]} if isinstance(value, dict) and "node" in value else set()
        return own.union(*map(kinds, values))

    programs: dict[str, set[str]] = {}
    for case in json.loads((FOLDER / "templates.json").read_text(encoding="utf-8")):
        if case["name"].startswith("model/") and isinstance(case["program"], dict):
            programs.setdefault(case["name"].split("/")[1], set()).update(kinds(case["program"]["body"]))
    chatml, every = len(programs["chatml"]), len(set().union(*programs.values()))
    words = " ".join(PAGE.split())
    assert f"ChatML's kind has {chatml} of the" in words and f"(`model/…`) have {every}." in words, (chatml, every)
    assert len(programs) == 5 and "all five families" in words


def test_the_manifest() -> None:
    (part,) = blocks(section("The manifest"), "json")
    content = copy.deepcopy(manifest.GOOD)
    for key, value in json.loads(part).items():
        content[key] = content[key] | value if key == "generation" else value
    read = manifest.case("", content)["read"]
    assert read["targets"]["executorch"]["path"] == "executorch/model.pte" and read["end_ids"] == [2]
    assert (read["sampling"]["temperature"], read["sampling"]["top_k"], read["sampling"]["top_p"]) == (0.6, 20, 0.95)


def test_the_sampling() -> None:
    text = section("Sampling")
    assert "Logits `[2, 1, 0, 1]`, temperature 1, `top_k` 3, `top_p` 0.7" in text
    logits, options = np.array([2, 1, 0, 1], np.float32), Sampling(1.0, 0.7, 3)
    told = re.findall(r"u = ([\d.]+) (?:lies )?at ([\d.]+): token (\d)", text)
    assert len(told) == 2
    for u, at, token in told:
        assert sampling.draw(logits, (), options, float(u)) == int(token)
        assert abs(float(u) * (1 + np.exp(-1)) - float(at)) < 1e-3


def test_the_plan() -> None:
    given, seen = blocks(section("The harness"), "json")
    found = plan.case("", read_record(Plan, json.loads(given), "plan"))
    assert found["plan"] == given + "\n"
    assert found["result"]["seen"] == json.loads(seen)


def test_every_vector_file_is_listed() -> None:
    assert set(re.findall(r"^\| `(\w+)\.json` \|", section("The vectors"), re.MULTILINE)) == set(MAKERS)
