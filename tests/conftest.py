"""Shared fixtures: tiny random checkpoints made by the original implementation in transformers."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from smolship.runtime.tokenizer import Tokenizer

os.environ.pop("COLUMNS", None)  # pytest-xdist hands its terminal's width to its workers: here nobody looks at tables

TINY: dict[str, dict[str, Any]] = {
    "llama": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rope_theta": 10_000.0},
    "llama_bias": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": False,
    },
    "llama3": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "head_dim": 32,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rope_theta": 1_000_000.0},
    "qwen2_window": {  # shorter than most prompts of the tests, in the last of three layers
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "num_hidden_layers": 3,
        "use_sliding_window": True,
        "sliding_window": 9,
        "max_window_layers": 2,
    },
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "rope_theta": 1_000_000.0, "head_dim": 48},
    "gemma3": {  # windows, and positions beyond what is scaled, in two layers of three
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "num_hidden_layers": 3,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 9,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 50_000.0},
        },
    },
    "granite": {
        "architectures": ["GraniteForCausalLM"],
        "model_type": "granite",
        "rope_theta": 10_000.0,
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.25,
        "residual_multiplier": 0.3,
        "logits_scaling": 4.0,
    },
    "lfm2": {  # convolutions on both sides of the one attention
        "architectures": ["Lfm2ForCausalLM"],
        "model_type": "lfm2",
        "num_hidden_layers": 3,
        "layer_types": ["conv", "full_attention", "conv"],
        "block_multiple_of": 32,
        "norm_eps": 1e-5,
    },
    "olmo2": {
        "architectures": ["Olmo2ForCausalLM"],
        "model_type": "olmo2",
        "rope_theta": 500_000.0,
        "tie_word_embeddings": False,
    },
    "openelm": {  # heads and MLPs that grow, in odd counts of key heads; it shares no names with the others
        "architectures": ["OpenELMForCausalLM"],
        "model_type": "openelm",
        "model_dim": 128,
        "num_transformer_layers": 4,
        "head_dim": 32,
        "qkv_multipliers": [0.5, 1.5],
        "num_gqa_groups": 2,
        "num_query_heads": [2, 4, 6, 6],
        "num_kv_heads": [1, 2, 3, 3],
        "ffn_multipliers": [0.5, 1.2, 1.8, 2.5],
        "ffn_dim_divisor": 32,
        "ffn_with_glu": True,
        "activation_fn_name": "swish",
        "normalization_layer_name": "rms_norm",
        "normalize_qk_projections": True,
        "share_input_output_layers": True,
        "rope_freq_constant": 10_000,
        "rope_max_length": 1024,
        "max_context_length": 512,
    },
    "phi3": {  # half of each head is rotated, with other frequencies than theta's
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "original_max_position_embeddings": 256,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.5,
            "short_factor": [1.0, 1.1, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0],
            "long_factor": [1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
        },
    },
    "smollm3": {
        "architectures": ["SmolLM3ForCausalLM"],
        "model_type": "smollm3",
        "rope_theta": 5_000_000.0,
        "no_rope_layers": [1, 1, 1, 0],
        "num_hidden_layers": 4,
    },
}
SLOW = ("granite", "llama_bias", "olmo2", "openelm", "qwen2")
KINDS = [  # of TINY: those that differ from others by factors, or by where norms stand, are tried with the real models
    pytest.param(kind, marks=[pytest.mark.real] * (kind in SLOW)) for kind in TINY
]
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "initializer_range": 0.08,
    "hidden_act": "silu",
}


SHARED = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "initializer_range")  # of SIZES, by all


def make_tiny(folder: Path, kind: str, **changes: Any) -> Path:
    """A random checkpoint of that kind, with norms and biases away from 1 and 0, saved by transformers; by the original
    of ours where that has no class."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from smolship.export.families import FAMILIES

    family = import_module(FAMILIES[TINY[kind]["model_type"]][1])
    sizes = SIZES
    if hasattr(family, "OWN_ORIGINAL"):
        import_module(family.OWN_ORIGINAL)
        sizes = {key: SIZES[key] for key in SHARED}
    raw = sizes | TINY[kind] | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * (0.1 if "norm" in name else 0.5))
    model.save_pretrained(folder)
    make_tokenizer(folder, raw["vocab_size"])
    return folder


def with_bos(tokenizer_json: bytes) -> Tokenizer:
    """A tokenizer that puts token 1 before texts, and otherwise is as given."""
    raw, bos = json.loads(tokenizer_json), "<|im_start|>"
    raw["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {bos: {"id": bos, "ids": [1], "tokens": [bos]}},
    }
    return Tokenizer(json.dumps(raw).encode())


def make_tokenizer(folder: Path, vocab: int) -> None:
    """A byte-level tokenizer: three special tokens, then 256 bytes, then merges up to `vocab`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = ["the quick brown fox jumps over the lazy dog; every good boy deserves favour", "def main(): return 0"]
    tokenizer.train_from_iterator(
        text * 3,
        trainers.BpeTrainer(
            vocab_size=vocab,
            special_tokens=["<pad>", "<|im_start|>", "<|im_end|>"],
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(template)


ROOMS = {"real": "models", "device": "boards", "native": "boards"}  # folders whose files share what takes minutes


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`sampled(n)`: one in n of a test's cases is tried by `make check`, the others with the real models."""
    place: dict[str, int] = {}
    for item in items:
        if (marked := item.get_closest_marker("sampled")) and not item.get_closest_marker("real"):
            name = item.nodeid.partition("[")[0]
            place[name] = place.get(name, -1) + 1
            if place[name] % marked.args[0]:
                item.add_marker(pytest.mark.real)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What one process runs where there are several (`--dist loadfile`): a file, or all files of `ROOMS`."""
    from xdist.scheduler import LoadFileScheduling

    class ByRoom(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return ROOMS.get(file.split("/")[1], file)

    return ByRoom(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session", autouse=True)
def nothing_kept() -> Iterator[None]:
    """No test takes a step that another has done, or the user; what is kept is tried in a folder of the test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMOLSHIP_CACHE", "off")
        patch.delenv("SMOLSHIP_CACHE_LIMIT", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Engines take one thread where nothing is said: tiny matrices take twice the time of two that wait for each other,
    and more where another process of tests runs beside this one."""
    from smolship.runtime import bundle, parity
    from smolship.tools.commands import bench as bench_command
    from smolship.tools.commands import parity as parity_command
    from smolship.tools.report import results

    with pytest.MonkeyPatch.context() as patch:
        for module in (bundle, parity, bench_command, parity_command, results):
            patch.setattr(module, "default_threads", lambda: 1)
        yield


@pytest.fixture(scope="session", autouse=True)
def steps_here() -> Iterator[None]:
    """Steps of an export run in this process, where torch is imported once, and so does the trial of its tokenizer,
    once for each. Tests of the real model, and those that ask for `steps_apart` or call the command, have them in
    processes of their own, as users do."""
    from smolship.export import pipeline, preflight
    from smolship.export.tokenizer_trial import trial
    from smolship.export.worker import STEPS, Outcome
    from smolship.runtime.memory import read_memory

    def run_step(name: str, arguments: dict[str, Any], progress: Callable[[str, int, int], None]) -> Outcome:
        start = time.monotonic()
        result = json.loads(json.dumps(STEPS[name](**json.loads(json.dumps(arguments)), progress=progress)))
        return Outcome(result, time.monotonic() - start, read_memory().peak_bytes)

    @cache
    def problems(raw: bytes, vocab: int, *, context: int = 2, tokens: int = 0, text: str | None = None) -> list[str]:
        return list(trial(raw, vocab, context, tokens, text))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "run_step", run_step)
        patch.setattr(preflight, "tokenizer_problems", problems)
        yield


@contextmanager
def processes() -> Iterator[None]:
    """Steps of an export in processes of their own."""
    from smolship.export import pipeline, worker

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "run_step", worker.run_step)
        yield


@pytest.fixture
def steps_apart() -> Iterator[None]:
    with processes():
        yield


@pytest.fixture
def faults(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Path]]:
    """The files with tracebacks of faults of ours; this test's alone, and its children's."""
    folder = tmp_path_factory.mktemp("faults")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return lambda: sorted(folder.glob("smolship-fault-*.txt"))


@pytest.fixture
def loads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench with one process that loads each artifact, and not several for a median."""
    from smolship.runtime import bench

    monkeypatch.setattr(bench, "LOADS", 1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """tiny("llama") -> folder of a tiny checkpoint, made once a session."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = make_tiny(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return get


@pytest.fixture(scope="session")
def tiny_bundle(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """tiny_bundle("llama", "int4") -> folder of an exported bundle with three targets, made once a session. Tests that
    change one copy it first."""
    from smolship.export import export

    made: dict[tuple[str, str], Path] = {}

    def get(kind: str, quant: str) -> Path:
        if (kind, quant) not in made:
            out = tmp_path_factory.mktemp("bundles") / f"{kind}-{quant}"
            targets = ("executorch", "onnx", "gguf")
            export(tiny(kind), out, to=targets, quant=quant, context=128, probe_tokens=256)  # type: ignore[arg-type]
            made[kind, quant] = out
        return made[kind, quant]

    return get
