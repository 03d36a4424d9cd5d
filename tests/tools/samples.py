"""A manifest and reports made by hand, for what shows them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from smolship.runtime.answers import Continuation, Drift
from smolship.runtime.bench import BenchReport, Spread
from smolship.runtime.facts import EndToken, GenerationFacts, ModelFacts, Recommended
from smolship.runtime.manifest import ListedFile, Manifest, Quantization, StepCost, TargetEntry
from smolship.runtime.memory import Memory
from smolship.runtime.parity import Check, ParityReport

NAN = float("nan")
CHECK = Check(
    stage="engine",
    what="simulated → decode",
    positions=2048,
    kl=2.5e-10,
    error=1e-11,
    p99=1.5e-9,
    max=2.25e-9,
    top1=0.99951,
    cosine=0.999998,
    max_abs=3.5e-5,
    perplexity_ratio=1.00012,
    floor=2e-10,
    bound=2.2e-8,
    passed=True,
)
QUANTIZATION = replace(
    CHECK,
    stage="quantization",
    what="original → quantized",
    kl=0.253,
    error=0.0041,
    top1=0.7534,
    perplexity_ratio=1.21,
    floor=0.241,
    bound=0.498,
)
FAILING = replace(CHECK, what="simulated → chunks", kl=0.0375, passed=False, note="a note")
NOT_A_NUMBER = replace(
    CHECK, what="cold → rewound", kl=NAN, error=NAN, p99=NAN, max=NAN, perplexity_ratio=None, passed=False
)
TOTAL = replace(QUANTIZATION, stage="total", what="original → engine", kl=0.261, floor=None, bound=None)


def parity(*checks: Check, **changes: Any) -> ParityReport:
    report = ParityReport(
        bundle="demo",
        target="onnx-cpu",
        engine="onnx",
        weights_digest="9f8a" * 16,
        host="a host",
        threads=2,
        quick=False,
        checks=[replace(check) for check in checks or (QUANTIZATION, CHECK, TOTAL)],
        seconds=61.25,
        greedy=[Continuation(tokens=64, original=7, simulation=None, logit_gap=0.0312, ids=[])],
        drift=[Drift(layer=i, difference=3e-7 * 2**i, floor=2e-7) for i in range(4)],
    )
    return replace(report, **changes)


def manifest(source: str = "a/model", **quantization: Any) -> Manifest:
    entry = TargetEntry(target="onnx-cpu", engine="onnx", folder="onnx", info={"file": "model.onnx"})
    return Manifest(
        model=ModelFacts(
            source=source,
            revision=None,
            architecture="LlamaForCausalLM",
            layers=30,
            hidden=576,
            heads=9,
            kv_heads=3,
            head_dim=64,
            vocab=49_152,
            parameters=134_515_008,
        ),
        generation=GenerationFacts(
            ends=(EndToken(2, "<|im_end|>", ("generation_config.json", "chat template")),),
            sampling=Recommended(do_sample=True, temperature=0.6, top_p=0.95, min_p=0.05),
            template="chat_template.jinja",
        ),
        context=2048,
        weights_digest="9f8a" * 16,
        weights_bytes=88_123_456,
        targets={"onnx": entry},
        quantization=replace(Quantization("int4", 4, 8, 8, 32, 1.0, [], 0), **quantization),
        tools={"smolship": "0.1.0"},
        steps={"quantize": StepCost(3.2, 410_000_000), "lower onnx": StepCost(6.41, None)},
        files={
            name: ListedFile(size, "")
            for name, size in (
                ("onnx/model.onnx", 400_000),
                ("onnx/model.data", 97_000_000),
                ("onnx-other/model.onnx", 50_000_000),
            )
        },
    )


def bench(engine: str = "onnx", **changes: Any) -> BenchReport:
    def spread(median: float) -> Spread:
        return Spread(median, 0.9 * median, 1.1 * median, 5)

    report = BenchReport(
        engine=engine,
        file="model.onnx",
        file_bytes=97_400_000,
        weight_bytes_per_token=88_123_456,
        context_tokens=2048,
        threads=2,
        cpu="a processor",
        system="a system",
        import_ms=spread(300),
        cold_load_ms=spread(180),
        warm_load_ms=spread(44),
        ttft_prompt_tokens=128,
        ttft_ms=spread(300),
        copy_gb_per_s=spread(11),
        prefill_tokens_per_s={128: spread(412), 512: spread(388)},
        inter_token_p50_ms=13.8,
        inter_token_p95_ms=15.1,
        decode_tokens_per_s={128: spread(71.4), 1024: spread(58.2)},
        inter_token_p99_ms=19.9,
        memory_before_load=Memory(50_000_000, 40_000_000, 90_000_000),
        memory=Memory(160_000_000, 150_000_000, 330_000_000),
        conditions=["2 threads; medians of 5 repeats"],
    )
    return replace(report, **changes)
