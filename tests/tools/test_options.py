"""Options that commands share: one name for one thing, old names taken, values out of range refused."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import typer

from smolship.runtime.bundle import open_bundle
from smolship.runtime.generate import generate
from smolship.tools.cli import app, run
from smolship.tools.commands import options
from smolship.tools.commands.options import OLD_NAMES, sampling_of
from smolship.tools.units import sampling as sampling_words

GROUP = typer.main.get_command(app)
SAMPLING = ["--temperature", "--top-p", "--top-k", "--min-p", "--repetition-penalty", "--seed"]
BOTH = [*SAMPLING, "--max-tokens", "--system", "--no-think", "--target", "--threads"]
WITH_TARGET = ["weights", "parity", "bench", "generate", "chat"]


@pytest.fixture(scope="module")
def bundle(tiny_bundle):
    return str(tiny_bundle("llama", "int4"))


@pytest.fixture
def recommending(tiny_bundle, tmp_path):
    """A bundle whose makers recommend something."""
    said = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.0, "repetition_penalty": 1.1}
    return bundle_of(tiny_bundle, tmp_path, said)


def bundle_of(tiny_bundle, tmp_path, said):
    raw = json.loads((tiny_bundle("llama", "int4") / "manifest.json").read_text())
    raw["generation"]["sampling"] = said
    (tmp_path / "manifest.json").write_text(json.dumps(raw))
    return open_bundle(tmp_path)


def help_of(capsys, *command):
    assert run([*command, "--help"]) == 0
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())


def generated(capsys, bundle, *options):
    assert run(["generate", bundle, "the quick", "-t", "onnx", "--max-tokens", "12", "--raw", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_top_help_names_every_target_and_command(capsys):
    text = help_of(capsys)
    for word in ("ExecuTorch", "ONNX", "Core ML", "GGUF", "smolship export", "smolship parity", "smolship chat"):
        assert word in text, word
    order = [
        "export",
        "inspect",
        "weights",
        "parity",
        "judge",
        "bench",
        "generate",
        "chat",
        "report",
        "devices",
        "cache",
    ]
    assert list(GROUP.commands) == order
    for name in order:
        first = " ".join((GROUP.commands[name].help or "").split("\n\n")[0].split())
        assert f"{name} {first}" in text


@pytest.mark.parametrize("command", GROUP.commands)
def test_each_help_has_an_example_that_can_be_read(command, capsys):
    """Its options exist: a line that ends in --help is parsed up to there."""
    examples = re.findall(rf"^ *(?:Example: +)?smolship ({command} .*)$", GROUP.commands[command].help, re.MULTILINE)
    assert examples and f"smolship {command}" in help_of(capsys, command)
    for line in examples:
        for option in re.findall(r" (--?[a-z-]+)", line):
            assert any(option in param.opts for param in GROUP.commands[command].params), option


@pytest.mark.parametrize("command", WITH_TARGET)
def test_old_names_are_taken_and_not_shown(command, capsys):
    text = help_of(capsys, command)
    assert "--target" in text and "-t" in text.split()
    assert not [name for name in OLD_NAMES if name in text.split()]


@pytest.mark.parametrize("given", [["--target", "x"], ["-t", "x"], ["--engine", "x"], ["-e", "x"], ["--engine=x"]])
@pytest.mark.parametrize("command", WITH_TARGET)
def test_every_name_of_target(bundle, command, given, capsys):
    assert run([command, bundle, *(["hi"] if command == "generate" else []), *given]) == 2
    said = capsys.readouterr().err
    assert "does not hold that target" in said and "got:      x\n" in said and "executorch, onnx, gguf" in said


def test_old_and_new_name_are_one_option(bundle, capsys):
    """As with any option, the last one counts; and it runs."""
    assert run(["weights", bundle, "-t", "x", "--engine", "onnx", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["targets"]) == ["onnx"]
    assert run(["weights", bundle, "--engine", "gguf", "-t", "onnx,onnx, gguf", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["targets"]) == ["onnx", "gguf"]


@pytest.mark.parametrize("name", ["--reveal", "--engines"])
def test_reveal(bundle, name, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("smolship.tools.measure.revealed", lambda bundle, targets, update: asked.extend(targets) or [])
    assert run(["weights", bundle, "-t", "onnx", name]) == 0
    assert asked == ["onnx"]


@pytest.mark.parametrize("given", ["", ",", " , "])
@pytest.mark.parametrize("command", WITH_TARGET)
def test_no_target_is_none(bundle, command, given, capsys):
    """It was asked for, so it does not stand for all."""
    assert run([command, bundle, *(["hi"] if command == "generate" else []), "-t", given]) == 2
    assert "does not hold that target" in capsys.readouterr().err


@pytest.mark.parametrize("command", WITH_TARGET)
def test_a_bundle_without_targets(tiny_bundle, tmp_path, command, capsys):
    raw = json.loads((tiny_bundle("llama", "int4") / "manifest.json").read_text()) | {"targets": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(raw))
    assert run([command, str(tmp_path), *(["hi"] if command == "generate" else [])]) == 2
    assert "target" in capsys.readouterr().err


def test_generate_and_chat_have_the_same_options(capsys):
    found = [{o for p in GROUP.commands[c].params for o in p.opts} for c in ("generate", "chat")]
    assert set(BOTH) <= found[0] & found[1] and found[0] - found[1] == {
        "prompt",
        "--raw",
        "--json",
        "--device",
        "--limit",
        "--force",
    }
    for command in ("generate", "chat"):
        assert "what the model's makers recommend" in help_of(capsys, command)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("--temperature", "-0.5", "a finite number, 0 or more"),
        ("--temperature", "nan", "a finite number, 0 or more"),
        ("--temperature", "inf", "a finite number, 0 or more"),
        ("--top-p", "0", "above 0, at most 1"),
        ("--top-p", "1.5", "above 0, at most 1"),
        ("--top-k", "-3", "0 (all of them) or more"),
        ("--min-p", "-0.1", "0 to 1"),
        ("--min-p", "7", "0 to 1"),
        ("--repetition-penalty", "0", "a finite number above 0; 1 is none"),
        ("--repetition-penalty", "nan", "a finite number above 0; 1 is none"),
        ("--seed", "-1", "0 or more"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "chat"])
def test_values_out_of_range(bundle, command, option, value, allowed, capsys):
    assert run([command, bundle, *(["hi"] if command == "generate" else []), option, value]) == 2
    printed = capsys.readouterr()
    assert "is out of range" in printed.err and f"expected: {allowed}" in printed.err and printed.out == ""
    assert option.strip("-").replace("-", "_") in printed.err


def test_the_makers_say_what_is_not_given(recommending, capsys):
    assert sampling_of(recommending) == recommending.sampling
    found = sampling_of(recommending, top_p=0.5, seed=3, temperature=None)
    assert (found.temperature, found.top_k, found.top_p, found.repetition_penalty) == (0.6, 20, 0.5, 1.1)
    assert found.seed == 3 and sampling_of(recommending, temperature=0).temperature == 0
    assert capsys.readouterr().err == ""


def test_what_changes_nothing_is_said(tiny_bundle, tmp_path, bundle, capsys):
    said = generated(capsys, bundle, "--seed", "7", "--top-k", "0", "--repetition-penalty", "1.1")
    assert said["sampling"]["temperature"] == 0
    assert run(["generate", bundle, "hi", "-t", "onnx", "--max-tokens", "2", "--top-k", "5", "--min-p", "0.1"]) == 0
    assert "note: without --temperature" in (text := capsys.readouterr().err) and "--top-k, --min-p" in text
    greedy = bundle_of(tiny_bundle, tmp_path, vars(open_bundle(bundle).manifest.generation.sampling) | {"top_k": 9})
    assert sampling_of(greedy).temperature == 0 and capsys.readouterr().err == ""  # nobody asked for it


def test_the_options_reach_the_sampler(bundle, capsys):
    """What the command says is what the library says with the same options."""
    hot = ["--temperature", "1.4", "--seed", "5"]
    plain = generated(capsys, bundle, *hot)["ids"]
    for name, value in (("top-p", 0.3), ("top-k", 3), ("min-p", 0.4), ("repetition-penalty", 3.0)):
        said = generated(capsys, bundle, *hot, f"--{name}", str(value))
        assert said["sampling"][name.replace("-", "_")] == value and said["ids"] != plain, name
        opened = open_bundle(bundle)
        wanted = sampling_of(opened, temperature=1.4, seed=5, **{name.replace("-", "_"): value})
        with opened.session("onnx") as session:
            text = opened.tokenizer.encode("the quick")
            assert said["ids"] == list(generate(session, text, 12, opened.stop_ids, wanted))
    assert generated(capsys, bundle, *hot, "--top-k", "1")["ids"] == generated(capsys, bundle)["ids"]


def test_inspect_shows_what_a_temperature_brings(tiny_bundle, tmp_path, recommending, capsys):
    """The defaults of the options."""
    said = vars(recommending.manifest.generation.sampling)
    for change, words in (
        ({}, "temperature 0.6, top_k 20, top_p 0.95, repetition_penalty 1.1"),
        ({"do_sample": False}, "greedy, repetition_penalty 1.1; with a temperature: top_k 20, top_p 0.95"),
        ({"do_sample": False, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}, "greedy"),
    ):
        assert sampling_words(bundle_of(tiny_bundle, tmp_path, said | change).manifest) == words


@pytest.mark.parametrize(
    ("platform", "parameters", "said"),
    [("linux", 3_075_098_624, True), ("darwin", 3_075_098_624, False), ("linux", 135_000_000, False)],
)
def test_what_interpreting_a_large_model_takes_is_said_first(capsys, monkeypatch, platform, parameters, said):
    bundle = SimpleNamespace(
        manifest=SimpleNamespace(model=SimpleNamespace(parameters=parameters)),
        entry=lambda name: SimpleNamespace(engine=name),
    )
    monkeypatch.setattr(options.sys, "platform", platform)
    options.say_interpreted(bundle, ["onnx", "coreml"], float32=True)
    notes = " ".join(capsys.readouterr().err.split())
    assert ("about 7 GB of memory, then 12 in float32, and 3 s for each token" in notes) == said
    assert "onnx" not in notes
