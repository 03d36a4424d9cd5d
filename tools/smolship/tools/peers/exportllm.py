"""ExecuTorch's own `export_llm`: int8 activations a token, int4 weights in groups of 32, XNNPACK, its cache inside."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from smolship.runtime.session import Session

REQUIREMENTS: tuple[str, ...] = ()
OURS = False
VERSIONS = ("executorch", "torch", "torchao")
PACKAGES = ("torch", "executorch.extension.pybindings._C")

NAMES = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}


def export(source: Path, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    _convert(source, folder)
    os.chdir(folder)  # hydra, which reads its command line, writes a folder of logs
    context = options["context"]
    sys.argv = [
        "export_llm",
        "base.model_class=smollm2",
        "base.checkpoint=m.pth",
        "base.params=params.json",
        "model.use_kv_cache=True",
        "model.use_sdpa_with_kv_cache=True",
        "model.dtype_override=fp32",
        f"export.max_seq_length={context}",
        f"export.max_context_length={context}",
        "export.output_name=model.pte",
        "quantization.qmode=8da4w",
        "quantization.group_size=32",
        "quantization.embedding_quantize='8,0'",
        "backend.xnnpack.enabled=True",
        "backend.xnnpack.extended_ops=True",
    ]
    from executorch.extension.llm.export.export_llm import main

    main()
    (folder / "m.pth").unlink()
    return {"files": ["model.pte"]}


def _convert(source: Path, folder: Path) -> None:
    """The checkpoint as export_llm wants it: a file of torch's, and the sizes under other names."""
    import torch
    from safetensors.torch import load_file

    raw = json.loads((source / "config.json").read_text())
    if raw["model_type"] != "llama":
        raise ValueError(f"export_llm's Llama has no place for {raw['model_type']}")
    stored = {k: v.float() for file in sorted(source.glob("*.safetensors")) for k, v in load_file(file).items()}
    table = stored.pop("model.embed_tokens.weight")
    state = {
        "tok_embeddings.weight": table,
        "norm.weight": stored.pop("model.norm.weight"),
        "output.weight": stored.pop("lm_head.weight", table),
    }
    for name, tensor in stored.items():
        _, _, layer, *middle, last = name.split(".")
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(middle[-1])
        if heads:  # its rotary embedding turns neighbours, the checkpoint's the halves of a head
            tensor = tensor.unflatten(0, (raw[heads], 2, -1)).transpose(1, 2).flatten(0, 2)
        state[f"layers.{layer}.{NAMES['.'.join(middle)]}.{last}"] = tensor
    torch.save(state, folder / "m.pth")
    rope = raw.get("rope_parameters") or raw
    params = {
        "dim": raw["hidden_size"],
        "hidden_dim": raw["intermediate_size"],
        "n_heads": raw["num_attention_heads"],
        "n_kv_heads": raw["num_key_value_heads"],
        "n_layers": raw["num_hidden_layers"],
        "norm_eps": raw["rms_norm_eps"],
        "rope_theta": rope["rope_theta"],
        "use_scaled_rope": False,
        "vocab_size": raw["vocab_size"],
        "use_hf_rope": False,
        "attention_qkv_bias": False,
    }
    (folder / "params.json").write_text(json.dumps(params))


def open_session(folder: Path, options: dict[str, Any], threads: int) -> Session:
    return Pte(folder / "model.pte", options, threads)


class Pte(Session):
    """The program by ExecuTorch's Python runtime, as our own engine calls ours."""

    def __init__(self, path: Path, options: dict[str, Any], threads: int):
        import torch

        from smolship.runtime.engines.executorch import POOL, _runtime

        super().__init__(options["vocab"], options["context"])
        self.torch, self.chunk = torch, self.capacity - 1  # a prompt as long as the context is refused
        runtime = _runtime()
        self.pool = POOL.used(runtime, threads)
        self.pool.__enter__()
        self.method = runtime._load_program(str(path)).load_method("forward")

    def _run(self, ids: Any, position: int) -> Any:
        inputs = self.torch.from_numpy(ids)[None], self.torch.tensor([position])
        logits = self.method.call(inputs, clone_outputs=False)[0]
        return logits.reshape(-1, logits.shape[-1])[-1].numpy()

    def close(self) -> None:
        if self.method:
            self.pool.__exit__(None, None, None)
        self.method = None
