"""ExecuTorch with XNNPACK: one method, `forward(ids [1, S], position [1]) -> logits [1, 1, V]`, cache in place.

The decoder's trace is walked once and written down as an ExecuTorch program: an XNNPACK subgraph from one attention to
the next, kernels for the embedding, the cache and one-token attention, and a branch to a subgraph of its own for the
attention of several tokens. The compiler (edge dialect, partitioner, delegation) is not used: it would take minutes to
find again in a symbolic graph what the trace says outright, and would hold every weight meanwhile.

Shapes: S tokens of a call (at most CHUNK), T tokens in the cache after it, H query heads, G key and value heads,
K head_dim, V vocabulary.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np

from smolship.export.config import DecoderConfig
from smolship.export.features import COMMON, beyond
from smolship.export.opaque import trace
from smolship.export.quantize import portable
from smolship.export.targets import Job
from smolship.export.targets.executorch.arithmetic import numerics as numerics
from smolship.runtime.chunks import chunk_for
from smolship.runtime.errors import missing_engine
from smolship.runtime.readback.hashing import Entry

NAME = "executorch-xnnpack"
ENGINE = "executorch"
FILE = "model.pte"

# The most tokens of one call; longer prompts come in chunks. Measured on SmolLM2-135M, 512 tokens from the start, in
# tokens a second: 1537 in chunks of 64, 1597 of 128, 1177 of 256 (the scores no longer fit the cache).
CHUNK = 128
SCORE = 12  # bytes of a score: XNNPACK holds it as the product, with the mask, and after the softmax


HOLDS = COMMON | {"heads"}  # of features.py


def problems(config: DecoderConfig) -> list[str]:
    """Why this target cannot hold such a model; empty where it can."""
    return beyond(config, HOLDS)


def stored_bytes(entry: Entry) -> int:
    """Float32 for what is not quantized and for scales, but bf16 for those of int4."""
    count = math.prod(entry.shape)
    if entry.bits == 16:
        return 4 * count
    return count * entry.bits // 8 + count // entry.group * (2 if entry.bits == 4 else 4)


def cannot_hold(config: DecoderConfig, name: str, entry: Entry, scales: np.ndarray) -> str:
    """Why XNNPACK's matrices, int4 in blocks and int8 with a scale a row, cannot hold such scales; empty where they
    can. An embedding that is not the head too is for a kernel of ExecuTorch's, which takes any."""
    if name == "embed" and not config.tied_head:
        return ""
    if entry.bits == 8 and entry.group < entry.shape[1]:
        return "8 bits and a scale for each group"
    if (scales <= 0).any():
        return "scales that are not positive"
    return "" if portable(scales).all() else "scales that bf16 does not hold"


def lower(job: Job, folder: Path) -> dict[str, Any]:
    """Write `model.pte`. Its extra methods are what the LLM runner that comes with ExecuTorch asks for."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they warn of their own affairs while ExecuTorch imports them
    try:
        from smolship.export.targets.executorch.lowering import Lowering
    except ImportError as error:
        raise missing_engine("executorch", "executorch", error) from None
    job.progress("trace", 0, 1)
    nodes = list(trace(job.config, job.context).graph.nodes)
    job.progress("trace", 1, 1)
    chunk = chunk_for(CHUNK, max(mixer.heads for mixer in job.config.attentions), job.context, SCORE)
    lowering = Lowering(job, chunk)
    for done, node in enumerate(nodes):
        lowering.visit(node)
        job.progress("lower", done + 1, len(nodes))
    metadata = {
        "get_max_seq_len": [chunk],
        "get_max_context_len": [job.context],
        "get_vocab_size": [job.config.vocab],
        "use_kv_cache": [1],
        "use_sdpa_with_kv_cache": [1],
        "enable_dynamic_shape": [1],
    }
    if job.facts.bos is not None:
        metadata["get_bos_id"] = [job.facts.bos]
    if job.facts.ends:
        metadata["get_eos_ids"] = list(job.facts.end_ids)
    lowering.program.write(folder / FILE, metadata, lambda done, total: job.progress("write", done, total))
    return {"file": FILE, "vocab": job.config.vocab, "context": job.context, "chunk": chunk}
