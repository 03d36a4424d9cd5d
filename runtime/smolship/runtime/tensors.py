"""The names of a decoder's tensors: one vocabulary of kinds for all that reads, writes or probes them.

A tensor is called `KIND` (the tables and the last norm) or `layers.N.KIND`; the bias of a matrix `….KIND.bias`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

TOP = ("embed", "head", "norm")
LINEARS = ("q", "k", "v", "o", "gate", "up", "down")  # of a layer that attends, in the order in which they are stored
# Norms before the attention and the MLP, after them (on what they give), and of queries and keys.
NORMS = ("attn_norm", "attn_out_norm", "mlp_norm", "mlp_out_norm", "q_norm", "k_norm")
# Of a layer that convolves, in place of q to o; the kernel is [hidden, tokens], the weight of the token itself last.
CONVOLUTION = ("conv_in", "conv", "conv_out")
KERNELS = ("conv",)
KINDS = (*TOP, *LINEARS, *CONVOLUTION, *NORMS)

GGUF = {  # kind -> its name in a GGUF file, without the ending; {} is the layer
    "embed": "token_embd",
    "head": "output",
    "norm": "output_norm",
    "q": "blk.{}.attn_q",
    "k": "blk.{}.attn_k",
    "v": "blk.{}.attn_v",
    "o": "blk.{}.attn_output",
    "gate": "blk.{}.ffn_gate",
    "up": "blk.{}.ffn_up",
    "down": "blk.{}.ffn_down",
    "attn_norm": "blk.{}.attn_norm",
    "attn_out_norm": "blk.{}.post_attention_norm",
    "mlp_norm": "blk.{}.ffn_norm",
    "mlp_out_norm": "blk.{}.post_ffw_norm",
    "q_norm": "blk.{}.attn_q_norm",
    "k_norm": "blk.{}.attn_k_norm",
    "conv_in": "blk.{}.shortconv.in_proj",
    "conv": "blk.{}.shortconv.conv",
    "conv_out": "blk.{}.shortconv.out_proj",
}
GGUF_OWN = {"lfm2": {"norm": "token_embd_norm"}}  # architecture -> what it calls otherwise


# Architectures in which llama.cpp rotates neighbours, so that its converter weaves the rows of each q and k head: row
# s * d/2 + p of ours, s in 0, 1, is its row 2 p + s.
GGUF_WOVEN = ("granite", "llama", "smollm3")

# Architectures of which llama.cpp stacks the rows of several matrices: its name of the stack, and what lies in it.
GGUF_FUSED: dict[str, dict[str, tuple[str, ...]]] = {
    "openelm": {"blk.{}.attn_qkv": ("q", "k", "v")},
    "phi3": {"blk.{}.attn_qkv": ("q", "k", "v"), "blk.{}.ffn_up": ("gate", "up")},
}


class Name(NamedTuple):
    """A tensor's name, taken apart. `layer` is None for what no layer holds."""

    layer: int | None
    kind: str
    bias: bool = False

    def __str__(self) -> str:
        layer = "" if self.layer is None else f"layers.{self.layer}."
        return f"{layer}{self.kind}{'.bias' if self.bias else ''}"


_NAME = re.compile(rf"(?:layers\.(\d{{1,6}})\.)?({'|'.join(KINDS)})(\.bias)?")


def parse(name: str) -> Name:
    """A name taken apart. Raises ValueError where it is none of ours."""
    found = _NAME.fullmatch(name)
    if not found or (found[1] is None) != (found[2] in TOP):
        raise ValueError(f"{name!r} is no tensor of a decoder")
    return Name(None if found[1] is None else int(found[1]), found[2], found[3] is not None)
