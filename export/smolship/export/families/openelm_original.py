"""The original of OpenELM that parity compares with: smolship's own.

transformers has no class of it, and the code that a checkpoint brings is never run. This is written from the paper
(Mehta et al. 2024, arXiv:2404.14619), plainly, with its own reading of the config, and shares nothing with the decoder
that is judged by it. The paper: RMSNorm before attention and MLP, no biases, rotary embedding, grouped queries, SwiGLU,
and the embedding's table as head; of the i-th of N layers, with t = i / (N - 1), the heads are
(a + t (b - a)) · D / K and the MLP's width is (c + t (d - c)) · D, both rounded. The norms of queries and keys, before
the rotation, and the order of the rows of the fused matrices are those of the published weights.

B texts, S tokens, T of them with those in the cache, D hidden, H query heads, G key/value heads, K head_dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

NOTE = (
    "the original is smolship's own, written from the paper (arXiv:2404.14619): transformers has no class of it, and "
    "code that a checkpoint brings is not run"
)
AT = "transformer.layers.{}."
GGUF = {  # parameter -> where a GGUF file has its rows, one after the other
    "transformer.token_embeddings.weight": ("token_embd.weight",),
    "transformer.norm.weight": ("output_norm.weight",),
    AT + "attn_norm.weight": ("blk.{}.attn_norm.weight",),
    AT + "attn.qkv_proj.weight": ("blk.{}.attn_qkv.weight",),
    AT + "attn.q_norm.weight": ("blk.{}.attn_q_norm.weight",),
    AT + "attn.k_norm.weight": ("blk.{}.attn_k_norm.weight",),
    AT + "attn.out_proj.weight": ("blk.{}.attn_output.weight",),
    AT + "ffn_norm.weight": ("blk.{}.ffn_norm.weight",),
    AT + "ffn.proj_1.weight": ("blk.{}.ffn_gate.weight", "blk.{}.ffn_up.weight"),
    AT + "ffn.proj_2.weight": ("blk.{}.ffn_down.weight",),
}


class OpenElmConfig(PreTrainedConfig):
    """The keys of its config.json, with what its makers take for one that is absent."""

    model_type = "openelm"
    attribute_map = {"hidden_size": "model_dim", "num_hidden_layers": "num_transformer_layers"}  # noqa: RUF012

    vocab_size: int = 32_000
    max_context_length: int = 2048
    num_transformer_layers: int = 12
    model_dim: int = 2048
    head_dim: int = 128
    qkv_multipliers: Any = None
    num_query_heads: Any = None
    num_kv_heads: Any = None
    num_gqa_groups: int = 1
    ffn_multipliers: Any = 4.0
    ffn_dim_divisor: int = 256
    normalize_qk_projections: bool = False
    rope_freq_constant: float = 10_000
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    def by_layer(self, value: Any) -> list[float]:
        """One number for all layers, a number for each, or the ends of a ramp."""
        last = max(self.num_transformer_layers - 1, 1)
        if not isinstance(value, list):
            return [value] * self.num_transformer_layers
        if len(value) != 2:
            return value
        first, change = value[0], value[1] - value[0]
        return [round(first + change * i / last, 2) for i in range(self.num_transformer_layers)]

    def heads(self, i: int) -> tuple[int, int]:
        """Of queries and of keys, in a layer."""
        if self.qkv_multipliers is None and self.num_query_heads is not None:
            heads = int(self.by_each(self.num_query_heads, i))
        else:
            dims = self.by_layer(1.0 if self.qkv_multipliers is None else self.qkv_multipliers)[i] * self.model_dim
            heads = rounded(dims, self.head_dim * self.num_gqa_groups) // self.head_dim
        return heads, heads // self.num_gqa_groups if self.num_kv_heads is None else self.by_each(self.num_kv_heads, i)

    def by_each(self, value: Any, i: int) -> int:
        return value[i] if isinstance(value, list) else value

    def width(self, i: int) -> int:
        return rounded(self.by_layer(self.ffn_multipliers)[i] * self.model_dim, self.ffn_dim_divisor)


def rounded(size: float, unit: int) -> int:
    """To the nearest unit, and up where a tenth or more would be lost; at least one."""
    units = max(int((size + unit / 2) // unit), 1)
    return unit * (units + 1 if units * unit < size * 0.9 else units)


Kept = dict[int, tuple[Tensor, Tensor]]  # layer -> keys and values of the tokens before, [B, G, T, K]


class Norm(nn.Module):
    """Divides by the root of the mean square."""

    def __init__(self, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * self.weight


def rotate(x: Tensor, places: Tensor, base: float) -> Tensor:
    """x [B, heads, S, K]: the pair of dimensions j and j + K / 2 turned by its position times base^(-2j / K)."""
    half = x.shape[-1] // 2
    speed = 1.0 / (base ** (torch.arange(0, 2 * half, 2, dtype=torch.float32) / (2 * half)))
    angle = places[:, None, :, None] * speed  # [B, 1, S, K / 2]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


class Attn(nn.Module):
    def __init__(self, config: OpenElmConfig, i: int):
        super().__init__()
        self.index, self.size, self.base = i, config.head_dim, config.rope_freq_constant
        self.heads, self.groups = config.heads(i)
        self.qkv_proj = nn.Linear(config.model_dim, (self.heads + 2 * self.groups) * self.size, bias=False)
        self.out_proj = nn.Linear(self.heads * self.size, config.model_dim, bias=False)
        normed = config.normalize_qk_projections
        self.q_norm, self.k_norm = (Norm(self.size) if normed else nn.Identity() for _ in "qk")

    def forward(self, x: Tensor, places: Tensor, hidden: Tensor, kept: Kept) -> Tensor:
        """`hidden` [B, 1, S, T] is what must not be seen."""
        rows = self.qkv_proj(x).unflatten(-1, (-1, self.size)).transpose(1, 2)  # [B, H + 2 G, S, K]
        q, k, v = rows.split([self.heads, self.groups, self.groups], 1)
        q, k = rotate(self.q_norm(q), places, self.base), rotate(self.k_norm(k), places, self.base)
        if self.index in kept:
            k, v = (torch.cat(pair, 2) for pair in zip(kept[self.index], (k, v), strict=True))
        kept[self.index] = k, v
        k, v = (part.repeat_interleave(self.heads // self.groups, 1) for part in (k, v))  # [B, H, T, K]
        scores = (q @ k.transpose(2, 3)) / self.size**0.5
        seen = torch.softmax(scores.masked_fill(hidden, torch.finfo(scores.dtype).min), -1)
        return self.out_proj((seen @ v).transpose(1, 2).flatten(2))


class Ffn(nn.Module):
    def __init__(self, config: OpenElmConfig, i: int):
        super().__init__()
        self.proj_1 = nn.Linear(config.model_dim, 2 * config.width(i), bias=False)
        self.proj_2 = nn.Linear(config.width(i), config.model_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.proj_1(x).chunk(2, -1)
        return self.proj_2(gate * torch.sigmoid(gate) * up)


class Block(nn.Module):
    def __init__(self, config: OpenElmConfig, i: int):
        super().__init__()
        self.attn_norm, self.attn = Norm(config.model_dim), Attn(config, i)
        self.ffn_norm, self.ffn = Norm(config.model_dim), Ffn(config, i)

    def forward(self, x: Tensor, *of: Any) -> Tensor:
        x = x + self.attn(self.attn_norm(x), *of)
        return x + self.ffn(self.ffn_norm(x))


class OpenElmModel(PreTrainedModel):
    """Token ids -> the last hidden states."""

    config_class, base_model_prefix = OpenElmConfig, "transformer"

    def __init__(self, config: OpenElmConfig):
        super().__init__(config)
        self.token_embeddings = nn.Embedding(config.vocab_size, config.model_dim)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_transformer_layers))
        self.norm = Norm(config.model_dim)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, kept: Kept | None = None, **_: Any
    ) -> BaseModelOutputWithPast:
        """`attention_mask` [B, T] is 0 where a shorter text is filled up in front; `kept` is added to."""
        kept, (texts, count) = {} if kept is None else kept, input_ids.shape
        before = kept[0][0].shape[2] if kept else 0
        there = torch.ones(texts, before + count) if attention_mask is None else attention_mask
        places = (there.cumsum(-1) - 1).clamp(min=0)[:, before:].float()
        later = torch.ones(count, before + count, dtype=torch.bool).triu(before + 1)
        x, hidden = self.token_embeddings(input_ids), later | (there[:, None, None] == 0)
        for block in self.layers:
            x = block(x, places, hidden, kept)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x))


class OpenELMForCausalLM(PreTrainedModel):
    """Token ids -> logits."""

    config_class, base_model_prefix = OpenElmConfig, "transformer"
    _tied_weights_keys = {"lm_head.weight": "transformer.token_embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: OpenElmConfig):
        super().__init__(config)
        self.transformer = OpenElmModel(config)
        self.lm_head = nn.Linear(config.model_dim, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.transformer.token_embeddings

    def forward(self, input_ids: Tensor, **of: Any) -> CausalLMOutputWithPast:
        return CausalLMOutputWithPast(
            logits=self.lm_head(self.transformer(input_ids=input_ids, **of).last_hidden_state)
        )

    def generate(self, ids: Tensor, max_new_tokens: int, attention_mask: Tensor | None = None, **greedy: Any) -> Tensor:
        """The texts with as many more tokens, always the likeliest."""
        kept: Kept = {}
        there, new = torch.ones_like(ids) if attention_mask is None else attention_mask, ids
        for _ in range(max_new_tokens):
            new = self(new, attention_mask=there, kept=kept).logits[:, -1:].argmax(-1)
            ids, there = torch.cat([ids, new], 1), torch.cat([there, torch.ones_like(new)], 1)
        return ids


def register() -> None:
    """Make transformers' Auto classes pick these by the `model_type`."""
    AutoConfig.register("openelm", OpenElmConfig, exist_ok=True)
    AutoModelForCausalLM.register(OpenElmConfig, OpenELMForCausalLM, exist_ok=True)


register()
