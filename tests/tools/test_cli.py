"""The command, end to end on tiny models: what it prints, and its exit codes."""

from __future__ import annotations

import json
import shutil

import pytest

from smolship.runtime.bundle import open_bundle
from smolship.tools.cli import run
from tests.bundles import snapshot
from tests.conftest import make_tiny
from tests.gguf_maker import make_gguf

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle("llama", "int4"), tmp_path / "bundle")


@pytest.mark.parametrize(
    "kind, quant",
    [
        ("llama", "int4"),
        ("smollm3", "none"),
        *(pytest.param(*case, marks=pytest.mark.real) for case in (("llama", "none"), ("smollm3", "int8"))),
    ],
)
def test_every_stage_passes_on_each_engine(tiny_bundle, kind, quant, capsys):
    assert run(["parity", str(tiny_bundle(kind, quant)), "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert [report["engine"] for report in reports] == ["executorch", "onnx", "gguf"]
    for report in reports:
        stages = [check["stage"] for check in report["checks"]]
        assert stages == [*["translation"] * 3, "quantization", "arithmetic", *["engine"] * 12, "tokenizer", "total"]
        judged = [check for check in report["checks"][:-1] if check["positions"]]
        assert all(check["exact"] or check["bound"] is not None for check in judged)


def test_export_prints_what_it_made(tiny, tmp_path, capsys):
    out = tmp_path / "new"
    assert (
        run(
            [
                "export",
                str(tiny("llama")),
                "-o",
                str(out),
                "--to",
                "onnx",
                "--context",
                "64",
                "--probe-tokens",
                "64",
                "--json",
            ]
        )
        == 0
    )
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["quantization"]["share_at_4_bits"] == 1.0
    assert manifest["steps"]["lower onnx"]["peak_bytes"] > 0
    assert set(manifest["targets"]) == {"onnx"}
    assert not list(tmp_path.glob(".*")), "temporary folders are left"


@pytest.mark.real
def test_widths_that_no_group_divides(tmp_path, capsys):
    """They are held at 8 bits, the user is told, and both engines still pass."""
    model = make_tiny(tmp_path / "odd", "llama", hidden_size=144, head_dim=32)
    out = tmp_path / "bundle"
    assert run(["export", str(model), "-o", str(out), "--context", "64", "--probe-tokens", "128"]) == 0
    printed = capsys.readouterr()
    manifest = open_bundle(out).manifest
    assert 0 < manifest.quantization.share_at_4_bits < 0.8
    assert f"only {manifest.quantization.share_at_4_bits:.0%} of the linear parameters" in printed.err
    assert run(["parity", str(out)]) == 0


@pytest.mark.real
def test_a_gguf_file_is_a_checkpoint_too(tiny, tmp_path, capsys):
    """The original is then transformers' own reading of the same file."""
    path = tmp_path / "tiny.gguf"
    make_gguf(tiny("llama"), path, "Q8_0")
    out = tmp_path / "bundle"
    assert run(["export", str(path), "-o", str(out), "--to", "onnx", "--context", "64", "--probe-tokens", "64"]) == 0
    capsys.readouterr()
    assert run(["parity", str(out)]) == 0


@pytest.mark.parametrize("engine", ["executorch", "gguf", "onnx"])
def test_generate_streams_the_same_as_json(bundle, engine, capsys):
    arguments = ["generate", str(bundle), "the quick", "--target", engine, "--max-tokens", "8", "--raw"]
    assert run(arguments) == 0
    printed = capsys.readouterr().out
    assert run([*arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert printed == answer["text"] + "\n"
    assert len(answer["ids"]) == 8 or answer["end"] == "stop"


def test_a_seed_makes_sampling_repeatable(bundle, capsys):
    arguments = ["generate", str(bundle), "hello", "-t", "onnx", "--max-tokens", "8", "--temperature", "1.5", "--json"]
    answers = []
    for seed in ("1", "1", "2"):
        assert run([*arguments, "--seed", seed]) == 0
        answers.append(json.loads(capsys.readouterr().out)["ids"])
    assert answers[0] == answers[1] != answers[2]


def test_chat_takes_turns(bundle, monkeypatch, capsys):
    lines = iter(["hi", "", "and then?"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines, None) or _end(lines))
    assert run(["chat", str(bundle), "-t", "onnx", "--max-tokens", "4"]) == 0
    assert "reused" in capsys.readouterr().err


def _end(lines):
    if lines.__length_hint__():
        return ""
    raise EOFError


def test_bench_and_inspect_print_json(loads_once, bundle, capsys):
    assert run(["bench", str(bundle), "-t", "onnx,gguf", "--repeats", "1", "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert [r["engine"] for r in reports] == ["onnx", "gguf"]
    assert all(r["memory"]["anonymous_bytes"] > 0 for r in reports)
    assert run(["inspect", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights_digest"] == open_bundle(bundle).manifest.weights_digest


@pytest.mark.real
def test_units_are_for_core_ml_alone(loads_once, tiny, tmp_path, capsys):
    made = tmp_path / "made"
    assert (
        run(
            [
                "export",
                str(tiny("llama")),
                "-o",
                str(made),
                "--to",
                "coreml,onnx",
                "--context",
                "64",
                "--probe-tokens",
                "0",
            ]
        )
        == 0
    )
    capsys.readouterr()
    bench = ["bench", str(made), "--repeats", "1", "--units", "TPU"]
    assert "CPU_AND_GPU" in refused(capsys, *bench, "-t", "coreml")
    assert run([*bench, "-t", "onnx"]) == 0
    assert "note: --units is for Core ML" in capsys.readouterr().err


def test_parity_writes_junit_and_judges_max_kl(bundle, tmp_path):
    junit = tmp_path / "junit.xml"
    assert run(["parity", str(bundle), "-t", "onnx", "--quick", "--junit", str(junit), "--max-kl", "1e-9"]) == 1
    assert "<failure" in junit.read_text()


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("smolship ")


@pytest.mark.parametrize("command", ["export", "parity", "bench", "generate", "chat", "inspect", "report"])
def test_help_teaches(command, capsys):
    assert run([command, "--help"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


def refused(capsys, *arguments, code=2):
    """The command's message, with no traceback and nothing on standard output."""
    assert run([str(a) for a in arguments]) == code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err and not printed.out
    return printed.err


class TestBadInput:
    def test_no_such_folder(self, tmp_path, capsys):
        assert "no such bundle" in refused(capsys, "parity", tmp_path / "nothing")

    def test_not_a_bundle(self, tmp_path, capsys):
        assert "not a smolship bundle" in refused(capsys, "inspect", tmp_path)

    @pytest.mark.parametrize("name", ["onnx/model.onnx.data", "executorch/model.pte", "tokenizer.json", "probes.npz"])
    @pytest.mark.parametrize("command", ["inspect", "parity", "bench"])
    def test_an_altered_file(self, bundle, name, command, capsys):
        path = bundle / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        assert f"{name}: its SHA-256 is not the manifest's" in refused(capsys, command, bundle)

    def test_a_missing_and_an_added_file(self, bundle, capsys):
        (bundle / "config.json").unlink()
        (bundle / "onnx" / "more.bin").write_bytes(b"?")
        message = refused(capsys, "inspect", bundle)
        assert "no config.json" in message and "onnx/more.bin: not in the manifest" in message

    @pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd"])
    @pytest.mark.parametrize("where", ["files", "folder", "file"])
    def test_a_manifest_that_points_outside(self, bundle, name, where, capsys):
        manifest = json.loads((bundle / "manifest.json").read_text())
        if where == "files":
            manifest["files"][name] = {"size": 1, "sha256": "00"}
        elif where == "folder":
            manifest["targets"]["onnx"]["folder"] = name
        else:
            manifest["targets"]["onnx"]["info"]["file"] = name
        (bundle / "manifest.json").write_text(json.dumps(manifest))
        assert "leaves its folder" in refused(capsys, "generate", bundle, "hi", "--target", "onnx")

    def test_a_link_that_leads_outside(self, bundle, tmp_path, capsys):
        outside = tmp_path / "outside"
        shutil.move(bundle / "onnx", outside)
        (bundle / "onnx").symlink_to(outside)
        assert "leaves its folder" in refused(capsys, "generate", bundle, "hi", "--target", "onnx")

    @pytest.mark.parametrize(
        "change",
        [
            {"schema": 99},
            {"context": "many"},
            {"context": 1 << 60},
            {"targets": []},
            {"more": 1},
            {"targets": {"onnx": {"target": "onnx-cpu", "engine": "onnx", "folder": "onnx", "info": {}}}},
            {"model": None},
            {"files": {"config.json": {"size": "big", "sha256": ""}}},
        ],
    )
    def test_a_malformed_manifest(self, bundle, change, capsys):
        manifest = json.loads((bundle / "manifest.json").read_text()) | change
        (bundle / "manifest.json").write_text(json.dumps(manifest))
        refused(capsys, "inspect", bundle)

    def test_an_engine_that_is_not_there(self, bundle, capsys):
        message = refused(capsys, "generate", bundle, "hi", "--target", "tpu")
        assert "tpu" in message and "executorch, onnx" in message

    def test_a_prompt_longer_than_the_context(self, bundle, capsys):
        message = refused(capsys, "generate", bundle, "the quick brown fox " * 100, "-t", "onnx")
        assert "longer than the context" in message and "--context" in message

    @pytest.mark.parametrize(
        "template",
        [
            "{% for i in range(10**9) %}{% for j in range(10**9) %}{% endfor %}{% endfor %}",
            "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "{{ 'x' * 10**10 }}",
            "{% if %}",
        ],
    )
    def test_a_hostile_chat_template(self, bundle, template, capsys):
        (bundle / "chat_template.jinja").write_text(template)
        assert "the chat template cannot be rendered" in refused(capsys, "generate", bundle, "hi", "-t", "onnx")

    def test_the_output_folder_holds_something_else(self, tiny, tmp_path, capsys):
        (tmp_path / "thesis.tex").write_text("years of work")
        before = snapshot(tmp_path)
        assert "holds something else" in refused(capsys, "export", tiny("llama"), "-o", tmp_path)
        assert snapshot(tmp_path) == before

    @pytest.mark.parametrize(
        "arguments, word",
        [
            (["--context", "100000"], "what the model was made for"),
            (["--context", "1"], "what the model was made for"),
            (["--quant", "int3"], "int4, int8, none"),
            (["--group-size", "48"], "(32, 64, 128)"),
            (["--to", "onnx,flash"], "executorch, gguf, onnx"),
            (["--to", ","], "executorch, gguf, onnx"),
            (["--embedding-bits", "5"], "4, 8 or 16"),
            (["--context", "64", "--probe-tokens", "1000000"], "too short to probe"),
        ],
    )
    def test_options_out_of_range(self, tiny, tmp_path, arguments, word, capsys):
        assert word in refused(capsys, "export", tiny("llama"), "-o", tmp_path / "out", "--to", "onnx", *arguments)
        assert not list(tmp_path.iterdir())

    def test_a_bad_checkpoint_leaves_the_old_bundle(self, steps_apart, bundle, tmp_path, capsys):
        before = snapshot(bundle)
        assert "no such checkpoint" in refused(capsys, "export", tmp_path / "gone", "-o", bundle)
        assert snapshot(bundle) == before

    def test_an_unknown_option(self, capsys):
        assert run(["parity", "--frobnicate"]) == 2
