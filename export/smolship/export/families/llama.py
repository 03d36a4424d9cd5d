"""Llama: Llama 2 and 3.x, SmolLM2, and every model that calls itself LlamaForCausalLM."""

from __future__ import annotations

from smolship.export.config import DecoderConfig, Fields, Rotary
from smolship.runtime.errors import InputError

NAMES = {
    "embed": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "head": "lm_head.weight",
    "attn_norm": "model.layers.{}.input_layernorm.weight",
    "q": "model.layers.{}.self_attn.q_proj.weight",
    "k": "model.layers.{}.self_attn.k_proj.weight",
    "v": "model.layers.{}.self_attn.v_proj.weight",
    "o": "model.layers.{}.self_attn.o_proj.weight",
    "mlp_norm": "model.layers.{}.post_attention_layernorm.weight",
    "gate": "model.layers.{}.mlp.gate_proj.weight",
    "up": "model.layers.{}.mlp.up_proj.weight",
    "down": "model.layers.{}.mlp.down_proj.weight",
}


def translate(fields: Fields) -> DecoderConfig:
    """The decoder that a Llama config.json describes. Bounds are far beyond any small model, yet finite."""
    layers = fields.int("num_hidden_layers", 1, 512)
    hidden = fields.int("hidden_size", 2, 65_536)
    heads = fields.int("num_attention_heads", 1, 1024)
    kv_heads = fields.int("num_key_value_heads", 1, heads, default=heads)
    if heads % kv_heads:
        raise InputError(
            "the heads do not divide into groups",
            got=f"{heads} heads and {kv_heads} key/value heads in {fields.where}",
            expected="num_attention_heads a multiple of num_key_value_heads",
        )
    head_dim = fields.int("head_dim", 2, 1024, default=max(hidden // heads, 2))
    if head_dim % 2:
        raise InputError("head_dim is odd", got=f"{head_dim} in {fields.where}", expected="an even number")
    vocab = fields.int("vocab_size", 1, 2_000_000)
    fields.choice("hidden_act", ("silu",), "silu")
    positions = fields.int("max_position_embeddings", 1, 1 << 24)
    bos = fields.ids("bos_token_id", vocab)
    attention_bias = fields.flag("attention_bias", False)
    return DecoderConfig(
        architecture="llama",
        model_type="llama",
        layers=layers,
        hidden=hidden,
        intermediate=fields.int("intermediate_size", 1, 1 << 20),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=vocab,
        norm_eps=fields.number("rms_norm_eps", 1e-12, 1.0, default=1e-6),
        rotary=rotary(fields, head_dim, positions),
        rotary_layers=(True,) * layers,
        tied_head=fields.flag("tie_word_embeddings", False),
        positions=positions,
        attention_bias=attention_bias,
        output_bias=attention_bias,
        mlp_bias=fields.flag("mlp_bias", False),
        bos=bos[0] if bos else None,
        eos=fields.ids("eos_token_id", vocab),
    )


def rotary(fields: Fields, head_dim: int, positions: int) -> Rotary:
    """Theta and scaling, from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling`.

    A scaling that we do not know is refused: read as "default" it would be wrong without a word.
    """
    new = fields.sub("rope_parameters")
    scaling = new if new.raw else fields.sub("rope_scaling")
    source = new if new.has("rope_theta") else fields
    theta = source.number("rope_theta", 1.0, 1e12, default=10_000.0)
    old_type = scaling.choice("type", ("default", "llama3"), "default")  # before transformers 4.43
    kind = scaling.choice("rope_type", ("default", "llama3"), old_type)
    if kind == "default":
        return Rotary(theta, head_dim)
    low = scaling.number("low_freq_factor", 1e-6, 1e6)
    return Rotary(theta, head_dim, (
        scaling.number("factor", 1.0, 1e6),
        low,
        scaling.number("high_freq_factor", low * (1 + 1e-6), 1e6),
        scaling.number("original_max_position_embeddings", 1, positions),
    ))  # fmt: skip
