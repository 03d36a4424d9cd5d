"""A bundle says the same everywhere: in the manifest, genai_config.json, the .pte, the GGUF file and the Modelfile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from smolship.export import export
from smolship.runtime.bundle import Bundle
from smolship.runtime.engines.gguf import GgufTokenizer
from smolship.runtime.errors import InputError
from smolship.runtime.facts import Recommended
from smolship.runtime.generate import Sampling

TURN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
SAID = {"do_sample": True, "temperature": 0.7, "top_k": 20.0, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.1}
SAYS_NOTHING = {"eos_token_id": None, "bos_token_id": None, "pad_token_id": None}
ENDS = (
    263,
    4,
    0,
    9,
    2,
)  # of generation_config.json, config.json, tokenizer_config.json and the template, in this order


def made(tiny: Any, folder: Path, generation: Any, config: Any, tokenizer: Any, template: str | None) -> Path:
    """The tiny checkpoint with other files beside its weights."""
    shutil.copytree(tiny("llama"), folder)
    raw = json.loads((folder / "config.json").read_text()) | config
    for name, value in (
        ("config.json", raw),
        ("generation_config.json", generation),
        ("tokenizer_config.json", tokenizer),
    ):
        (folder / name).write_text(json.dumps(value))
    (folder / "chat_template.jinja").unlink()
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.fixture(scope="module")
def bundle(tiny, tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("said")
    model = made(
        tiny,
        folder / "model",
        {"eos_token_id": [263, 4], "pad_token_id": 11} | SAID,
        {"eos_token_id": [4, 0], "bos_token_id": 1, "pad_token_id": None},
        {"eos_token": {"content": token(tiny, 9)}, "pad_token": "<pad>"},
        TURN,
    )
    return export(model, folder / "bundle", to=("executorch", "onnx", "gguf"), context=64, probe_tokens=0)


def token(tiny: Any, i: int) -> str:
    raw = json.loads((tiny("llama") / "tokenizer.json").read_text())
    return next(text for text, other in raw["model"]["vocab"].items() if other == i)


def test_the_manifest_and_what_reads_it(bundle):
    facts = bundle.manifest.generation
    assert bundle.stop_ids == facts.end_ids == ENDS and (facts.bos, facts.pad) == (1, 11)
    assert bundle.sampling == Sampling(0.7, 0.8, 20, 0.05, 1.1)
    notes = bundle.manifest.quantization.notes
    assert any("top_k is 20.0" in note for note in notes)
    assert any(note.startswith("onnx: ") and "min_p 0.05" in note for note in notes)
    assert any(note.startswith("gguf: ") and "the others (4, 0)" in note for note in notes)
    assert bundle.template.render([{"role": "user", "content": "hi"}]) == "<|im_start|>user\nhi<|im_end|>\n"


def test_genai_config(bundle):
    import onnxruntime_genai as genai

    said = json.loads((bundle.path / "onnx" / "genai_config.json").read_text())
    assert [said["model"][f"{role}_token_id"] for role in ("eos", "bos", "pad")] == [list(ENDS), 1, 11]
    want = {key: value for key, value in SAID.items() if key != "min_p"} | {"top_k": 20}
    assert {key: said["search"][key] for key in want} == want
    model = genai.Model(str(bundle.path / "onnx"))  # which refuses what it does not know
    generator = genai.Generator(model, genai.GeneratorParams(model))
    generator.append_tokens(np.array([5, 6, 7], np.int32))
    generator.generate_next_token()


def test_the_constants_of_the_pte(bundle):
    from executorch.extension.pybindings import portable_lib

    program = portable_lib._load_for_executorch(str(bundle.path / "executorch" / "model.pte"))
    assert program.run_method("get_eos_ids", ()) == list(ENDS)
    assert program.run_method("get_bos_id", ()) == [1]


def test_the_gguf_file(bundle):
    path = bundle.path / "gguf" / "model.gguf"
    found = {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}
    ids = {role: found.get(f"tokenizer.ggml.{role}_token_id") for role in ("eos", "eot", "eom", "bos", "padding")}
    assert ids == {"eos": 9, "eot": 2, "eom": 263, "bos": 1, "padding": 11}
    sampling = {key.removeprefix("general.sampling."): v for key, v in found.items() if "sampling" in key}
    assert sampling == pytest.approx(
        {"temp": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05, "penalty_repeat": 1.1, "penalty_last_n": -1}
    )
    assert found["tokenizer.chat_template"] == TURN


def test_llama_cpp_ends_where_the_file_says(bundle):
    tokenizer = GgufTokenizer(bundle.path / "gguf" / "model.gguf")
    ends = [i for i in range(300) if tokenizer.llama.llama_vocab_is_eog(tokenizer.vocab, i)]
    assert ends == [2, 9, 263]


def test_the_modelfile_names_every_special_end_and_all_of_the_sampling(bundle):
    lines = (bundle.path / "gguf" / "Modelfile").read_text().splitlines()
    stops = [line for line in lines if " stop " in line]
    assert stops == ['PARAMETER stop "<pad>"', 'PARAMETER stop "<|im_end|>"'], "no ordinary token's text"
    want = {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05, "repeat_penalty": 1.1, "repeat_last_n": -1}
    assert lines[-6:] == [f"PARAMETER {key} {value}" for key, value in want.items()]


def test_what_goes_in_again_comes_out(bundle, tmp_path):
    """The GGUF file as a checkpoint: the ends that it has room for, and all of the sampling."""
    again = export(bundle.path / "gguf" / "model.gguf", tmp_path / "again", to=("onnx",), context=64, probe_tokens=0)
    facts = again.manifest.generation
    assert facts.end_ids == (9, 2, 263) and facts.bos == 1 and facts.pad == 11
    assert facts.sampling == bundle.manifest.generation.sampling == Recommended(True, 0.7, 20, 0.8, 0.05, 1.1)


class TestNoEnd:
    """A model of which no file names an end token."""

    @pytest.fixture
    def model(self, tiny, tmp_path) -> Path:
        return made(tiny, tmp_path / "model", {}, SAYS_NOTHING, {}, None)

    def test_gguf_is_refused_before_the_work(self, model, tmp_path):
        began: list[str] = []

        def progress(step: str, *_: Any) -> None:
            began.append(step)

        with pytest.raises(InputError, match="gguf: no token ends a text"):
            export(model, tmp_path / "out", to=("onnx", "gguf"), context=64, progress=progress)
        assert set(began) <= {"check"} and not (tmp_path / "out").exists()

    def test_others_are_made_with_a_note(self, model, tmp_path):
        import onnxruntime_genai as genai

        bundle = export(model, tmp_path / "out", to=("onnx", "executorch"), context=64, probe_tokens=0)
        assert bundle.stop_ids == () and any("--max-tokens" in n for n in bundle.manifest.quantization.notes)
        genai.Model(str(bundle.path / "onnx"))


class TestProbes:
    """Prompts that the template refuses go raw, and a generation config leaves the greedy answers as they are."""

    def probed(self, tiny: Any, folder: Path, template: str | None, generation: Any) -> tuple[Bundle, dict[str, Any]]:
        folder.mkdir()
        model = made(tiny, folder / "model", generation, {}, {"eos_token": "<|im_end|>"}, template)
        bundle = export(model, folder / "out", to=("onnx",), quant="none", context=128, probe_tokens=32)
        return bundle, bundle.probes().arrays

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(
        "template",
        [
            "{{ raise_exception('no tools') }}",
            *(
                pytest.param(text, marks=pytest.mark.real)
                for text in ("{{ tools[0].name }}", "{{ messages[1].content }}")
            ),
            "",
            "{% if 'France' in messages[-1].content %}{{ raise_exception('no geography') }}{% endif %}" + TURN,
        ],
    )
    def test_a_template_that_refuses_them(self, tiny, tmp_path, template):
        bundle, arrays = self.probed(tiny, tmp_path / "a", template, {})
        raw = bundle.tokenizer.encode("What is the capital of France? Answer in one sentence.")
        assert arrays["greedy.prompt.0"].tolist() == raw
        notes = bundle.manifest.quantization.notes
        assert [n for n in notes if "parity's prompts go without" in n or "no chat template" in n]

    @pytest.mark.real
    def test_penalties_and_beams_are_not_for_them(self, tiny, tmp_path):
        plain = self.probed(tiny, tmp_path / "a", TURN, {})[1]
        other = self.probed(tiny, tmp_path / "b", TURN, {"repetition_penalty": 9.0, "num_beams": 3})[1]
        assert plain["greedy.original.0"].tolist() == other["greedy.original.0"].tolist()
        assert plain["greedy.original.0"].tolist() == plain["greedy.onnx.0"].tolist()
