"""Llama: Llama 2 and 3.x, SmolLM2, and every model that calls itself LlamaForCausalLM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smolship.export.config import Attention, DecoderConfig, Layer, Mlp, QkNorm
from smolship.export.families.fields import Fields
from smolship.export.families.rope import rotary
from smolship.export.rotary import Rotary
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

# What LlamaConfig takes for a key that is absent. None: as many kv heads as heads, and a head_dim that divides hidden.
DEFAULTS: dict[str, Any] = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "vocab_size": 32_000,
    "max_position_embeddings": 2048,
    "rope_theta": 10_000.0,
    "norm_eps": {"rms_norm_eps": 1e-6},
    "tie_word_embeddings": False,
    # Its key (None: it has none), and the one that is known, as config.json and we call it.
    "activation": {"hidden_act": ("silu", "silu")},
}
FULL = "full_attention"


def translate(fields: Fields) -> DecoderConfig:
    """The decoder that a Llama config.json describes."""
    config = decoder(fields, DEFAULTS, *biases(fields))
    whole_heads(fields, config)
    all_full(fields, config)
    return config


def whole_heads(fields: Fields, config: DecoderConfig) -> None:
    """Refuse what some classes of transformers refuse, whatever the size of a head."""
    heads = config.attentions[0].heads
    if config.hidden % heads:
        raise InputError(
            "the hidden size does not divide into heads",
            got=f"{config.hidden:,} and {heads} heads in {fields.where}",
            expected="hidden_size a multiple of num_attention_heads, as the model's class wants it",
        )


def biases(fields: Fields) -> tuple[bool, bool, bool]:
    """Of q, k and v, of o, and of the MLP."""
    attention = fields.flag("attention_bias", False)
    return attention, attention, fields.flag("mlp_bias", False)


def all_full(
    fields: Fields, config: DecoderConfig, forgets: tuple[str, ...] = ("sliding_window", "attention_chunk_size")
) -> None:
    """Refuse layers of another kind than full attention, and the keys by which transformers' cache `forgets`, where no
    `layer_types` tell it otherwise, what the attention of this class still sees."""
    count = len(config.layers)
    fields.only("layer_types", [FULL] * count, ["attention"] * count)
    for key in forgets:
        if fields.has(key) and not fields.has("layer_types") and fields.int(key, 1, 1 << 24) < config.positions:
            raise fields.wrong(key, f"null, or at least the {config.positions:,} positions: attention here is full")


def layer_types(fields: Fields, count: int, known: tuple[str, ...]) -> list[str]:
    """The kind of each layer."""
    kinds = fields.raw["layer_types"]
    if not isinstance(kinds, list) or len(kinds) != count or not {*map(str, kinds)} <= {*known}:
        raise fields.wrong("layer_types", f"{count} of {' or '.join(known)}")
    return kinds


def decoder(
    fields: Fields,
    defaults: dict[str, Any],
    bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: QkNorm = None,
    rotary: Callable[[Fields, int, int, float], Rotary] = rotary,
) -> DecoderConfig:
    """What Llama shares with its relatives: layers of one shape. `defaults`: what the model's own class takes for keys
    that are absent; `rotary`: how it reads a rotary embedding, of which all layers get the same. Bounds are far beyond
    any small model, yet finite."""

    def size(key: str, low: int, high: int) -> int:
        return fields.int(key, low, high, defaults[key])

    layers, hidden = size("num_hidden_layers", 1, 512), size("hidden_size", 2, 65_536)
    heads, given = size("num_attention_heads", 1, 1024), "num_key_value_heads" in fields.raw
    kv_default = heads if given else defaults["num_key_value_heads"] or heads  # null says: as many as heads
    kv_heads = fields.int("num_key_value_heads", 1, heads, kv_default, nullable=True)
    if heads % kv_heads:
        raise InputError(
            "the heads do not divide into groups",
            got=f"{heads} heads and {kv_heads} key/value heads in {fields.where}",
            expected="num_attention_heads a multiple of num_key_value_heads",
        )
    own = defaults["head_dim"]
    head_dim = fields.int("head_dim", 2, 1024, own or max(hidden // heads, 2), nullable=own is None)
    if head_dim % 2:
        raise InputError("head_dim is odd", got=f"{head_dim} in {fields.where}", expected="an even number")
    vocab, positions = size("vocab_size", 1, 2_000_000), size("max_position_embeddings", 1, 1 << 24)
    ((key, (named, activation)),) = defaults["activation"].items()
    if key is not None:
        fields.choice(key, (named,), named)
    # What transformers reads of any config, at the values that change nothing.
    for key, nothing in (("is_causal", True), ("is_encoder_decoder", False), ("per_layer_config", {})):
        fields.only(key, nothing)
    fields.only("kv_sharing_modes")
    bos = fields.ids("bos_token_id", vocab)
    ((eps_key, eps),) = defaults["norm_eps"].items()
    mixer = Attention(
        heads,
        kv_heads,
        head_dim,
        scale=head_dim**-0.5,
        rotary=rotary(fields, head_dim, positions, defaults["rope_theta"]),
        bias=bias,
        output_bias=output_bias,
        qk_norm=qk_norm,
    )
    return DecoderConfig(
        architecture=fields.raw["model_type"],
        layers=(Layer(mixer, Mlp(size("intermediate_size", 1, 1 << 20), activation, bias=mlp_bias)),) * layers,
        hidden=hidden,
        vocab=vocab,
        norm_eps=fields.number(eps_key, 1e-12, 1.0, default=eps, whole=False),
        tied_head=fields.flag("tie_word_embeddings", defaults["tie_word_embeddings"]),
        positions=positions,
        bos=bos[0] if bos else None,
        eos=fields.ids("eos_token_id", vocab),
    )
