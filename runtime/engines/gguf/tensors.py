"""Checks of the tensors of a GGUF file against the manifest's architecture.

llama.cpp checks shapes but not types: it aborts the process if a norm is not in float32. The names
are those of its T5 architecture (`LLM_ARCH_T5`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from edge.runtime.artifact.manifest import Architecture
from edge.runtime.engines.gguf.header import TensorInfo
from edge.runtime.errors import ArtifactError

_F32 = 0
_Shape = tuple[int, ...]


def check_tensors(
    tensors: Mapping[str, TensorInfo], shape: Architecture, buckets: int, path: str | Path
) -> None:
    """Check that a file has exactly the tensors of its architecture.

    Args:
        tensors: The file's tensors.
        shape: The manifest's architecture.
        buckets: Rows of the tables of position bias.
        path: The file, for error messages.

    Raises:
        ArtifactError: A tensor is missing, unknown, or of another shape or type.
    """
    expected = dict(_expected(shape, buckets))
    for name, dimensions in expected.items():
        found = tensors.get(name)
        if found is None:
            raise ArtifactError(f"{path}: tensor {name} is missing; export it again")
        if found.shape != dimensions:
            raise ArtifactError(
                f"{path}: tensor {name} has the shape {list(found.shape)}, must be"
                f" {list(dimensions)}; export it again"
            )
        if found.type != _F32 and ("norm" in name or "rel_b" in name):
            raise ArtifactError(f"{path}: tensor {name} must be float32; export it again")
    for name in tensors:
        if name not in expected:
            raise ArtifactError(f"{path}: unexpected tensor {name!r}; export it again")


def _expected(shape: Architecture, buckets: int) -> Iterator[tuple[str, _Shape]]:
    """Names and shapes, innermost dimension first."""
    width, inner, hidden = shape.d_model, shape.inner_dim, shape.d_ff
    yield "token_embd.weight", (width, shape.vocab_size)
    if not shape.tied_head:
        yield "output.weight", (width, shape.vocab_size)
    # llama.cpp needs an encoder at least as deep as the decoder.
    depths = {
        "enc": max(shape.num_layers, shape.num_decoder_layers),
        "dec": shape.num_decoder_layers,
    }
    for stack, depth in depths.items():
        yield f"{stack}.output_norm.weight", (width,)
        yield f"{stack}.blk.0.attn_rel_b.weight", (shape.num_heads, buckets)
        attentions = ("attn", "cross_attn") if stack == "dec" else ("attn",)
        for layer in range(depth):
            block = f"{stack}.blk.{layer}"
            for attention in attentions:
                yield f"{block}.{attention}_norm.weight", (width,)
                for name in "qkv":
                    yield f"{block}.{attention}_{name}.weight", (width, inner)
                yield f"{block}.{attention}_o.weight", (inner, width)
            yield f"{block}.ffn_norm.weight", (width,)
            if shape.is_gated_act:
                yield f"{block}.ffn_gate.weight", (width, hidden)
            yield f"{block}.ffn_up.weight", (width, hidden)
            yield f"{block}.ffn_down.weight", (hidden, width)
