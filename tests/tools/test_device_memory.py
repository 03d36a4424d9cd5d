"""Memory before a run on a device: what an artifact needs at least, and what is refused, said or forced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smolship.export import export
from smolship.export.families import llama
from smolship.export.families.fields import Fields
from smolship.export.forecast.run import BASE, run_memory
from smolship.export.forecast.sizes import artifact_bytes
from smolship.export.weights import SCHEMES, layouts
from smolship.runtime.bundle import open_bundle
from smolship.runtime.errors import SetupError
from smolship.runtime.manifest import TargetEntry
from smolship.tools.cli import run
from smolship.tools.devices import opening
from smolship.tools.devices.facts import DeviceFacts, read_device
from smolship.tools.devices.memory import ENGINE, check_memory, need_of, packed_bytes, share
from smolship.tools.peers.shapes import SHAPES
from tests.conftest import make_tiny
from tests.tools.local_link import LocalLink

GB, MB = 1_000_000_000, 1_000_000
SMOL = {  # SmolLM2-135M's
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rope_theta": 100_000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
}
WIDTH = {"executorch": 4, "onnx": 4, "gguf": 2}  # bytes of a number in the cache
MODELS = {"smollm2-135m": SMOL, "smollm3-3b": SHAPES["smollm3-3b"]}


@pytest.fixture(scope="module")
def facts() -> DeviceFacts:
    """This machine's, as a board of 2 GB of which half is available."""
    found = read_device(LocalLink())
    known = {"memory_total": 2 * GB, "memory_available": GB, "memory_allowance": None}
    return replace(found, **known, system="Debian GNU/Linux 12")


def test_a_limit_of_the_session_counts_where_it_is_less(facts: DeviceFacts) -> None:
    found = share(replace(facts, memory_allowance=(300 * MB, "/sys/fs/cgroup/memory.max")))
    assert found == (300 * MB, "/sys/fs/cgroup/memory.max leaves 300 MB to the session")
    assert share(replace(facts, memory_allowance=(2 * GB, "ulimit -v"))) == share(replace(facts, memory_allowance=None))


def test_the_engines_are_those_that_were_measured() -> None:
    assert {name: ENGINE[name] for name in ("onnx", "gguf")} == {n: sum(BASE[n]) for n in ("onnx", "gguf")}


@pytest.mark.parametrize("context", [2048, 8192])
@pytest.mark.parametrize("quant", ["int4", "int8", "none"])
@pytest.mark.parametrize("shape", ["smollm2-135m", "smollm3-3b"])
@pytest.mark.parametrize("target", ["executorch", "onnx", "gguf"])
def test_no_more_than_the_forecast_and_most_of_it(shape: str, quant: str, context: int, target: str) -> None:
    """The forecast is held against measurements; it adds buffers and scores of a chunk."""
    config = llama.translate(Fields(MODELS[shape], Path()))
    entries = layouts(object(), config, SCHEMES[quant])  # type: ignore[arg-type]
    tokenizer = {"tokenizer.json": b'{"model": {"vocab": {}, "merges": []}}'}
    artifact = artifact_bytes(target, config, entries, context, tokenizer)
    found = run_memory(target, config, entries, context, artifact)
    forecast = found.added_anonymous + found.added_mapped - found.idle
    mixer = config.attentions[0]
    width = WIDTH[target]
    cache = 2 * len(config.layers) * context * mixer.kv_heads * mixer.head_dim * width
    ours = (artifact if target == "gguf" else packed_bytes(target, entries)) + cache
    assert 0.5 * forecast < ours <= forecast, f"{ours:,} of {forecast:,}"


@pytest.mark.real
@pytest.mark.parametrize("quant", ["int4", "int8", "none"])
def test_a_bundle_says_it(tiny_bundle: Any, quant: str) -> None:
    bundle = open_bundle(tiny_bundle("llama", quant))
    for target in bundle.manifest.targets:
        if target in ENGINE:
            need = need_of(bundle, target)
            manifest = bundle.manifest
            assert need.cache == 2 * 2 * manifest.context * 2 * 32 * WIDTH[target]  # 2 layers, 2 heads of 32
            file = bundle.path / bundle.entry(target).folder / str(bundle.entry(target).info["file"])
            if target == "gguf":
                assert need.weights == file.stat().st_size
            assert str(need).startswith("at least ") and f"{manifest.context:,} tokens" in str(need)


def test_a_share_is_what_is_available_and_half_of_a_phone(facts: DeviceFacts) -> None:
    assert share(facts) == (900 * MB, "1.00 GB available, of which 100 MB (5 %) must stay so")
    phone = replace(facts, system="Android 15", memory_total=8 * GB, memory_available=6 * GB)
    assert share(phone) == (4 * GB, "half of a phone's 8.00 GB")
    assert share(replace(phone, memory_available=2 * GB)) == (
        1600 * MB,
        "2.00 GB available, of which 400 MB (5 %) must stay so",
    )
    assert share(replace(facts, memory_available=10 * MB)) == (
        0,
        "10.0 MB available, of which 100 MB (5 %) must stay so",
    )


def test_too_little_is_refused_with_figures_and_forced_with_a_word(tiny_bundle: Any, facts: DeviceFacts) -> None:
    bundle = open_bundle(tiny_bundle("llama", "int4"))
    need = need_of(bundle, "onnx")
    fits = replace(facts, memory_available=need.total + facts.memory_total // 20)  # type: ignore[operator]
    assert check_memory("ssh://pi", fits, bundle, ["onnx"], False) == []
    short = replace(fits, memory_available=fits.memory_available - 1)  # type: ignore[operator]
    with pytest.raises(SetupError) as caught:
        check_memory("ssh://pi", short, bundle, ["executorch", "onnx"], False)
    parts = caught.value.parts()
    assert caught.value.exit_code == 3 and "too little for onnx; nothing was sent" in str(parts["what"])
    assert "5 %" in str(parts["got"]) and f"onnx needs {need}" == parts["expected"] and "--force" in str(parts["todo"])
    (said,) = check_memory("ssh://pi", short, bundle, ["executorch", "onnx"], True)
    assert "--force" in said and str(need) in said and "\n" not in said


@pytest.mark.parametrize("value", [None, 0])
def test_a_device_that_does_not_say_is_no_obstacle_and_it_is_said(
    tiny_bundle: Any, facts: DeviceFacts, value: int | None
) -> None:
    bundle = open_bundle(tiny_bundle("llama", "int4"))
    silent = replace(facts, memory_available=value, missing={"memory_available": "old kernel"} if value is None else {})
    (said,) = check_memory("ssh://pi", silent, bundle, ["onnx"], False)
    assert "was not looked at" in said and ("old kernel" if value is None else "says 0") in said


def test_a_cache_of_any_layers_is_counted_as_the_session_holds_it(tmp_path: Path) -> None:
    """Convolutions, and heads of 20, which ONNX keeps as 24."""
    model = make_tiny(tmp_path / "m", "lfm2", num_attention_heads=3, num_key_value_heads=1, hidden_size=60)
    bundle = export(model, tmp_path / "b", to=[*WIDTH], quant="none", context=96, probe_tokens=0)
    assert bundle.manifest.model.head_dim is None
    inputs = 2 * 96 * 60  # of two layers
    for target, numbers in {
        "executorch": inputs + 2 * 96 * 20,
        "onnx": inputs + 2 * 96 * 24,
        "gguf": 2 * 96 * 20,
    }.items():
        assert need_of(bundle, target).cache == numbers * WIDTH[target]
    with bundle.session("onnx", threads=1) as session:
        held = sum(cache.nbytes for cache in session.caches)
    rows = 2 * 2 * 60 * 4  # zeros before the first token, of two convolutions
    assert held - rows == need_of(bundle, "onnx").cache


@pytest.mark.parametrize("said", [None, 0, -5, "9", 1.5, True, 1 << 63])
def test_a_bundle_that_does_not_say_its_cache(tiny_bundle: Any, said: Any) -> None:
    """An older one, or one whose number cannot be used."""
    bundle = open_bundle(tiny_bundle("llama", "int4"))
    listed = bundle.manifest.targets["onnx"].to_json()
    listed["info"]["cache_bytes"] = said
    bundle.manifest.targets["onnx"] = TargetEntry.from_json(listed, "manifest.json", "targets.onnx")
    need = need_of(bundle, "onnx")
    assert need.cache is None and "without the cache" in str(need) and need.total > ENGINE["onnx"]


@pytest.mark.parametrize("command", ["parity", "bench", "generate"])
def test_the_commands_refuse_before_anything_is_sent(
    tiny_bundle: Any, facts: DeviceFacts, command: str, monkeypatch: Any, capsys: Any
) -> None:
    """With --force they go on, to what comes next: nothing was set up for ONNX there."""
    link = LocalLink()
    monkeypatch.setattr(opening, "link_to", lambda address: link)
    monkeypatch.setattr(opening, "read_device", lambda link, *folders: replace(facts, memory_available=140 * MB))
    monkeypatch.setattr(opening, "installed", lambda *a: None)
    line = [command, str(tiny_bundle("llama", "int4")), *(["hi"] if command == "generate" else [])]
    line += ["-t", "onnx", "--device", "ssh://test"]
    assert run(line) == 3
    said = capsys.readouterr().err
    assert "too little for onnx; nothing was sent" in said and link.pushed == []
    assert run([*line, "--force"]) == 3
    said = capsys.readouterr().err
    assert "note: ssh://test: memory: --force: onnx needs at least" in said
    assert "nothing was sent" not in said and "nothing there executes onnx" in said


@pytest.mark.parametrize("option", [["--force"], ["--limit", "600"], ["--force", "--limit", "10m"]])
@pytest.mark.parametrize("command", ["parity", "bench", "generate"])
def test_options_of_devices_are_refused_here(command: str, option: list[str], tmp_path: Path, capsys: Any) -> None:
    assert run([command, str(tmp_path), *(["hi"] if command == "generate" else []), *option]) == 2
    said = capsys.readouterr().err
    assert "for runs on a device" in said and all(name in said for name in option if name.startswith("--"))
