"""What a forecast says, against bundles and measurements; devices, options that make a model fit, disks."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smolship.export import export, output, pipeline
from smolship.export.checkpoints import open_checkpoint
from smolship.export.families import llama, translate
from smolship.export.families.fields import Fields
from smolship.export.forecast import asking, costs, forecast
from smolship.export.forecast.devices import DEVICES, Device, System
from smolship.export.forecast.record import Forecast, Need, StepForecast
from smolship.export.forecast.run import run_memory
from smolship.export.forecast.sizes import kept_bytes
from smolship.export.forecast.step import Foreseen, held_by, make_forecast
from smolship.export.options import Options, scheme_of
from smolship.export.tensorfile import Slot
from smolship.export.transforms import theirs
from smolship.export.weights import SCHEMES, layouts
from smolship.runtime.errors import GateError, InputError, SetupError
from smolship.tools.forecast_check import CHECKED, LIMIT, pairs
from smolship.tools.peers.shapes import SHAPES, write_tokenizer
from tests.bundles import snapshot
from tests.conftest import make_tiny

MEASURED = Path(__file__).with_name("forecast_measured.jsonl")
ALL = ("executorch", "onnx", "coreml", "gguf")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step runs in this process, as the others do."""
    monkeypatch.setattr(asking, "run_step", pipeline.run_step)


@pytest.fixture(scope="module")
def headers(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """headers("smollm3-3b") -> a checkpoint of that shape whose file is a hole behind its header."""

    def make(raw: dict[str, Any]) -> Path:
        folder = tmp_path_factory.mktemp("headers")
        config = llama.translate(Fields(raw, folder))
        at, listed = 0, {}
        for name, shape in config.shapes().items():
            end = at + 2 * math.prod(shape)
            listed[theirs(llama.NAMES, name)] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, end]}
            at = end
        header = json.dumps(listed).encode()
        header += b" " * (-len(header) % 8)
        with (folder / "model.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + at)
        (folder / "config.json").write_text(json.dumps(raw))
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tiny("llama") / name, folder / name)
        return folder

    return make


@pytest.fixture(scope="module")
def large(headers: Any) -> Path:
    """SmolLM3's shape."""
    return headers(SHAPES["smollm3-3b"] | {"bos_token_id": 1, "eos_token_id": 2})  # type: ignore[no-any-return]


def look(model: Path, to: Any, quant: str = "int4", context: int = 512, device: str = "", **asked: Any) -> Forecast:
    """A forecast without what is asked of the checkpoint before it, on a machine as fast as the constants'."""
    checkpoint = open_checkpoint(str(model))
    scheme = scheme_of(quant, asked.get("group_size", 32), asked.get("embedding"), asked.get("head"))
    options = Options("", None, tuple(to), quant, scheme, context, asked.get("probe_tokens", 0), None)
    return make_forecast(
        checkpoint, checkpoint.files, options, DEVICES.get(device), asked.get("speed", costs.REFERENCE)
    )


def test_artifacts_and_bundle(tiny, tmp_path):
    """The smallest models are mostly program, and within 15 % all the same."""
    asked: dict[str, Any] = {"to": ("executorch", "onnx", "gguf"), "context": 128, "probe_tokens": 0}
    files = export(tiny("llama"), tmp_path / "out", **asked).manifest.files
    found = look(tiny("llama"), **asked)
    for name, target in found.targets.items():
        made = sum(file.size for path, file in files.items() if path.startswith(f"{name}/"))
        assert target.artifact_bytes == pytest.approx(made, rel=0.15), name
    assert found.bundle_bytes == pytest.approx(sum(file.size for file in files.values()), rel=0.15)


@pytest.mark.parametrize(
    "shape", [pytest.param(name, marks=[] if name == "b-41m" else pytest.mark.real) for name in CHECKED]
)
def test_shapes_that_no_constant_was_found_on(headers, tmp_path, shape):
    """int4 and int8, two contexts, as `smolship.tools.forecast_check` measured them: all within 15 %."""
    folder = shutil.copytree(headers(CHECKED[shape]), tmp_path / shape)
    write_tokenizer(folder, CHECKED[shape]["vocab_size"])
    checkpoint = open_checkpoint(str(folder))
    records = [json.loads(line) for line in MEASURED.read_text().splitlines()]
    mine = [record for record in records if record["shape"] == shape]
    assert {(r["quant"], r["context"]) for r in mine} == {(q, c) for q in ("int4", "int8") for c in (512, 4096)}
    found = [pair for record in mine for pair in pairs(record, checkpoint, costs.REFERENCE) if not pair.seconds]
    assert len(found) == 4 * (3 * len(ALL) + 6)
    assert [pair for pair in found if abs(pair.off) > LIMIT] == []


def test_headers_of_a_large_model_are_all_that_is_read(large, tmp_path, monkeypatch):
    """Peaks of its steps as they were measured once, of a whole export of that shape."""
    monkeypatch.setattr(Slot, "read", lambda *a: pytest.fail("weights were read"))
    monkeypatch.chdir(tmp_path)
    found = forecast(large, to=ALL, context=2048, probe_tokens=0)  # the whole of it
    measured = {"quantize": 117, "lower executorch": 378, "lower coreml": 698, "lower onnx": 379, "lower gguf": 332}
    for step, peak in measured.items():
        assert found.steps[step].peak_bytes == pytest.approx(peak * 1e6, rel=0.15), step
    assert found.parameters == 3_075_098_624 and 1.7e9 < found.targets["gguf"].artifact_bytes < 2.0e9
    assert not list(tmp_path.iterdir())


def test_the_cache_is_as_long_as_the_context(large):
    short, long = (look(large, ALL, context=context) for context in (4096, 8192))
    numbers = 36 * 2 * 4 * 128  # of a position
    for name, width in {"executorch": 4, "onnx": 4, "coreml": 2, "gguf": 2}.items():
        one, other = short.targets[name], long.targets[name]
        assert other.cache_bytes - one.cache_bytes == 4096 * numbers * width
        assert other.anonymous_bytes - one.anonymous_bytes >= 4096 * numbers * width
    assert long.disk_bytes > short.disk_bytes


def test_of_windows_some_engines_keep_little_more():
    """What docs/families.md says of Gemma 3 1B: 22 of its 26 layers see 512 tokens."""
    config, _, _ = translate(SHAPES["gemma3-1b"], "gemma3-1b")
    numbers = 2 * 256  # of a position
    assert kept_bytes(config, 4096, "gguf") == 2 * numbers * (4 * 4096 + 22 * 1024)
    assert kept_bytes(config, 1024, "gguf") == 2 * numbers * 26 * 1024
    assert kept_bytes(config, 4096, "onnx") == 4 * numbers * (4 * 4096 + 22 * 1024)
    assert kept_bytes(config, 1000, "onnx") == 4 * numbers * 26 * 1000
    assert kept_bytes(config, 4096, "executorch") == 2 * kept_bytes(config, 4096, "coreml") == 4 * numbers * 26 * 4096


def test_heads_that_onnx_fills_up_are_counted_with_their_zeros(tmp_path):
    """Of 20 numbers, in the cache and in memory; the other targets keep them as they are."""
    config = open_checkpoint(str(make_tiny(tmp_path, "qwen3", head_dim=20))).config
    numbers = 2 * 2 * 512 * 2  # of one number of a head: keys and values of two layers, two heads
    assert kept_bytes(config, 512, "onnx") == 4 * numbers * 24
    assert kept_bytes(config, 512, "executorch") == 4 * numbers * 20
    entries = layouts(object(), config, SCHEMES["none"])
    short, long = (run_memory("onnx", config, entries, context, 0).added_anonymous for context in (512, 1024))
    assert long - short == 4 * numbers * 24


def test_more_bits_take_more(large):
    four, eight, sixteen = (look(large, ALL, quant) for quant in ("int4", "int8", "none"))
    for less, more in ((four, eight), (eight, sixteen)):
        assert more.disk_bytes > less.disk_bytes
        assert all(more.targets[name].artifact_bytes > less.targets[name].artifact_bytes for name in ALL)


def test_times_follow_the_machine_and_the_probes(large):
    fast = costs.REFERENCE
    slow = type(fast)(*(value / 2 for value in vars(fast).values()))
    assert look(large, ["onnx"], speed=slow).seconds == pytest.approx(2 * look(large, ["onnx"]).seconds)
    few, many = (look(large, ["onnx"], probe_tokens=tokens).seconds for tokens in (256, 2048))
    assert look(large, ["onnx"]).seconds < few < many


def test_a_device_that_nobody_knows(tiny):
    with pytest.raises(InputError, match=r"unknown device\n.*nokia\n.*phone-6gb, phone-8gb, pi4-4gb, pi5-8gb"):
        forecast(tiny("llama"), to=("onnx",), context=64, device="nokia")


def test_what_fits_and_what_does_not(tiny, large):
    small = look(tiny("llama"), ALL, context=64, device="pi4-4gb")
    assert small.fits and not small.targets["coreml"].needs and "coreml does not run" in " ".join(small.notes)
    found = look(large, ("executorch", "gguf"), context=8192, device="pi4-4gb")
    assert not found.fits and found.targets["executorch"].over_bytes and not found.targets["gguf"].over_bytes
    assert any("as it is: gguf" in note for note in found.notes)
    assert look(large, ALL, context=8192, device="pi5-8gb").fits and look(large, ALL).fits is None


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("quant", ["int4", "none"])
def test_each_option_that_is_proposed_makes_it_fit(large, device, quant):
    asked: dict[str, Any] = {"quant": quant, "context": 32_768, "device": device}
    found = look(large, ("executorch", "onnx", "gguf"), **asked)
    assert not found.fits
    for name, target in found.targets.items():
        assert target.over_bytes or not target.changes
        if target.over_bytes:  # the longest context that fits, or none
            contexts = [int(change.split()[1]) for change in target.changes if change.startswith("--context")]
            longer = 2 * contexts[0] if contexts else 256
            assert longer == 32_768 or not look(large, [name], **asked | {"context": longer}).fits
        for change in target.changes:
            if match := re.fullmatch(r"--(context|group-size|embedding-bits|head-bits) (\d+)", change):
                key = {"embedding-bits": "embedding", "head-bits": "head"}.get(match[1], match[1].replace("-", "_"))
                assert look(large, [name], **asked | {key: int(match[2])}).fits, change
            elif change.startswith("--quant "):
                assert look(large, [name], **asked | {"quant": change.split()[1]}).fits, change
            else:
                assert "increased-memory-limit" in change and device.startswith("phone")


def test_mapped_files_do_not_count_against_an_ios_app():
    ios = next(system for system in DEVICES["phone-8gb"].systems if system.name == "iOS")
    assert Need("iOS", 10**9, 4 * 10**9, ios.anonymous_bytes, ios.total_bytes).over_bytes == 0
    assert Need("iOS", 4 * 10**9, 10**9, ios.anonymous_bytes, ios.total_bytes).over_bytes == 10**9
    assert Need("Pi OS", 10**9, 4 * 10**9, 3 * 10**9, 3 * 10**9).over_bytes == 2 * 10**9


def test_what_llama_cpp_packs_anew_is_not_needed_twice(large):
    """Its file's int4 matrices stay mapped, and nobody reads them again."""
    checkpoint = open_checkpoint(str(large))
    device = Device("board", "a board", (System("Linux", 10**10, 10**10, python=True),))
    foreseen = Foreseen(checkpoint, checkpoint.files, device)
    whole = foreseen.target("gguf", SCHEMES["int4"], 512)
    (need,) = whole.needs
    int4 = sum(out * width for name, (out, width) in checkpoint.config.linears().items()) * 18 // 32
    assert whole.mapped_bytes - need.mapped_bytes == int4


def test_lifted_matrices_are_held_otherwise_by_xnnpack(tiny):
    checkpoint = open_checkpoint(str(tiny("llama")))
    entries = layouts(checkpoint, checkpoint.config, SCHEMES["int8"])
    lifted = {name: replace(entry, group=32, origin="lifted") for name, entry in entries.items() if entry.bits == 8}
    assert {entry.group for entry in held_by("gguf", lifted).values()} == {32}
    assert all(entry.group == entry.shape[1] for entry in held_by("executorch", lifted).values())


def test_an_export_for_a_device_that_cannot_hold_it_does_not_begin(large, tmp_path):
    before, steps = snapshot(tmp_path), []
    with pytest.raises(GateError, match=r"pi4-4gb cannot hold this model at 16,384 tokens\n.*\n.*\n.*--context 4096"):
        export(
            large,
            tmp_path / "out",
            to=("executorch",),
            context=16_384,
            device="pi4-4gb",
            progress=lambda step, *rest: steps.append(step),
        )
    assert set(steps) == {"forecast"} and snapshot(tmp_path) == before


def test_an_export_for_a_device_that_can_hold_it(tiny, tmp_path):
    bundle = export(tiny("llama"), tmp_path / "out", to=("gguf",), context=64, probe_tokens=0, device="phone-6gb")
    assert list(bundle.manifest.targets) == ["gguf"]


def test_what_an_export_refuses_a_dry_run_refuses(tiny, tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="something else"):
        forecast(tiny("llama"), tmp_path, to=("onnx",), context=64)
    with pytest.raises(InputError, match="the context cannot be that long"):
        forecast(tiny("llama"), to=("onnx",), context=100_000)


class TestDisk:
    Usage = namedtuple("Usage", "total used free")

    @pytest.fixture
    def free(self, monkeypatch):
        return lambda size: monkeypatch.setattr(
            output.shutil, "disk_usage", lambda path: self.Usage(1 << 40, 0, int(size))
        )

    def test_it_asks_for_what_is_there_at_the_fullest_moment(self, large):
        gguf, both, copied = (look(large, to) for to in (["gguf"], ["gguf", "onnx"], ["coreml"]))
        assert both.disk_bytes - gguf.disk_bytes == both.targets["onnx"].artifact_bytes
        assert copied.disk_bytes > 2.9 * copied.targets["coreml"].artifact_bytes  # the set, and two copies

    def test_a_disk_that_is_too_full_is_refused(self, tmp_path, free):
        free(output.SURE * 1000)
        output.check_disk(tmp_path / "not" / "there", 1000)
        free(output.SURE * 1000 - 1)
        with pytest.raises(SetupError, match=r"the disk is full.* needs 1,000 bytes, and 749 are free"):
            output.check_disk(tmp_path / "not" / "there", 1000)

    def test_by_a_dry_run_too(self, large, tmp_path, free):
        free(10**9)
        with pytest.raises(SetupError, match="the disk is full"):
            forecast(large, tmp_path / "out", to=("gguf",), context=512, probe_tokens=0)
        assert not list(tmp_path.iterdir())

    def test_and_by_an_export(self, large, tmp_path, free):
        free(10**9)
        with pytest.raises(SetupError, match="the disk is full"):
            export(large, tmp_path / "out", to=("gguf",), context=512, probe_tokens=0)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("step", "of_a_folder", "whole", "measured"),
    [
        ("quantize", 116, 0, 504),
        ("lower coreml", 582, 0, 706),
        ("lower executorch", 413, 0, 504),
        ("lower gguf", 690, 0, 937),
        ("lower onnx", 411, 0, 504),
        ("probe", 2_380, 1_072, 3_540),
    ],
)
def test_what_a_gguf_checkpoint_takes_besides(step, of_a_folder, whole, measured):
    """MB, of Gemma-3-270M's 262,144 tokens, its export measured once at a context of 1,024."""
    cost = costs.with_gguf(StepForecast(1.0, of_a_folder * 10**6), 262_144, whole * 10**6)
    assert cost.peak_bytes == pytest.approx(measured * 10**6, rel=0.15)
