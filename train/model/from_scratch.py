"""Small T5s from scratch: their shapes, and a copy-biased initialization.

A randomly initialized T5 needs hours of training to discover that output words can be copied from
the input. Tasks that rewrite text, such as removing disfluencies, are mostly copying. The weights
therefore start with a copying circuit, and training only has to learn where to deviate from it. The
circuit is the induction head of Olsson et al., "In-context Learning and Induction Heads" (2022), in
an encoder-decoder:

1. The first encoder layer attends 1, 2 and 3 tokens back through its relative position bias alone,
   and adds a code of each of those tokens to the position, each in a separate subspace.
2. The decoder's first self-attention does the same, 1 and 2 tokens back.
3. The last cross-attention compares the decoder's last three tokens with the three tokens before
   each source position, and emits the source token at the matching position.

The circuit needs a tied embedding, which turns the emitted embedding into its token's logit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.runtime.errors import UsageError
from edge.runtime.registry import unknown_name

if TYPE_CHECKING:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    from edge.train.config import TrainConfig


@dataclass(frozen=True)
class Shape:
    """The size of a T5, as in T5Config; `layers` are encoder and decoder layers.

    `d_kv` × `heads` may differ from `d_model`.
    """

    d_model: int
    layers: tuple[int, int]
    d_ff: int
    heads: int
    d_kv: int
    vocab_size: int


SHAPES = {
    "tiny": Shape(d_model=128, layers=(4, 1), d_ff=384, heads=4, d_kv=64, vocab_size=2000),
    "mini": Shape(d_model=256, layers=(6, 2), d_ff=768, heads=6, d_kv=64, vocab_size=4000),
}

# Tokens that the encoder looks back; the decoder one less, since its position has the last token.
_LOOK_BACK = 3
_BIAS = 6.0  # position bias of the attended token: e^6 outweighs about 25 other positions
_CODE_SCALE = 1.0  # of a neighbor's code relative to the token's own embedding
_MATCH_SCORE = 5.0  # of a source position whose predecessors match; higher values learn slower
_EMIT_SCALE = 12.0  # of the emitted embedding, which must outweigh the decoder's own
_OUTPUT_SCALE = 0.3  # of all output projections, so that random layers don't hide the circuit
# Ratios of a cross-attention head's dimensions for the last, second-last and third-last token.
_MATCH_RATIOS = ((0.5, 0.5, 0.0), (0.36, 0.32, 0.32))


def get_shape(name: str) -> Shape:
    """The shape called `name`.

    Raises:
        UsageError: The name is unknown.
    """
    if name not in SHAPES:
        raise UsageError(f"--from-scratch: {unknown_name('shape', name, tuple(SHAPES))}")
    return SHAPES[name]


def new_model(
    shape: Shape,
    *,
    vocab_size: int | None = None,
    dropout: float = 0.05,
    seed: int = 0,
    copy_biased: bool = True,
) -> T5ForConditionalGeneration:
    """Initialize a T5 with tied embeddings and gated GELU.

    Args:
        shape: The model's size.
        vocab_size: Vocabulary size in place of the shape's.
        dropout: Dropout rate, 0 to 1.
        seed: Seed of the weights; torch's global generator is left unchanged.
        copy_biased: Whether to wire in the copying circuit.
    """
    import torch
    from transformers import T5ForConditionalGeneration

    config = shape_config(shape, vocab_size=vocab_size or shape.vocab_size, dropout=dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(config)
        if copy_biased:
            wire_copying(model)
    return model


def shape_config(shape: Shape, *, vocab_size: int, dropout: float) -> T5Config:
    """The configuration of a new model of that shape."""
    from transformers import T5Config

    encoder_layers, decoder_layers = shape.layers
    return T5Config(
        vocab_size=vocab_size,
        d_model=shape.d_model,
        d_kv=shape.d_kv,
        d_ff=shape.d_ff,
        num_layers=encoder_layers,
        num_decoder_layers=decoder_layers,
        num_heads=shape.heads,
        relative_attention_max_distance=64,
        dropout_rate=dropout,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )


def wire_copying(model: T5ForConditionalGeneration) -> None:
    """Write the copying circuit into the weights of a freshly initialized model.

    Uses torch's global generator.

    Raises:
        UsageError: The model has fewer than three heads or an untied output head.
    """
    import torch

    config = model.config
    if config.num_heads < _LOOK_BACK:
        raise UsageError(f"the copying circuit needs {_LOOK_BACK} heads, not {config.num_heads}")
    if model.lm_head.weight.data_ptr() != model.shared.weight.data_ptr():
        raise UsageError("the copying circuit needs an output head tied to the embedding")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith((".o.weight", ".wo.weight")):
                parameter.mul_(_OUTPUT_SCALE)
        # read[i] maps an embedding to the code of a token i+1 back; write[i] is its subspace.
        read = [_directions(config.d_kv, config.d_model) for _ in range(_LOOK_BACK)]
        write = [_directions(config.d_kv, config.d_model) for _ in range(_LOOK_BACK)]
        encoder = model.encoder.block[0].layer[0].SelfAttention
        _look_back(encoder, list(zip(read, write, strict=True)), config.d_kv)
        # The decoder's token i back is compared with the source's token i+1 back: the same code.
        decoder = model.decoder.block[0].layer[0].SelfAttention
        decoder_write = [_directions(config.d_kv, config.d_model) for _ in range(_LOOK_BACK - 1)]
        _look_back(decoder, list(zip(read[1:], decoder_write, strict=True)), config.d_kv)
        cross = model.decoder.block[-1].layer[1].EncDecAttention
        _match_and_emit(cross, [read[0], *decoder_write], write, config.d_kv)


def _directions(count: int, width: int) -> torch.Tensor:
    """Random orthonormal rows, (count, width)."""
    import torch

    return torch.linalg.qr(torch.randn(width, width))[0][:count]


def _look_back(
    attention: torch.nn.Module,
    codes: list[tuple[torch.Tensor, torch.Tensor]],
    d_kv: int,
) -> None:
    """Let head i of a self-attention look i+1 tokens back, read codes[i][0], write codes[i][1]."""
    for head, (read, write) in enumerate(codes):
        rows = slice(head * d_kv, (head + 1) * d_kv)
        # Small queries: the position decides at first, but gradients still reach them.
        attention.q.weight[rows] *= 0.1
        attention.v.weight[rows] = read
        attention.o.weight[:, rows] = write.T * _CODE_SCALE
        # Bucket n is "n tokens back" in both stacks while n is small.
        attention.relative_attention_bias.weight[:, head] = 0.0
        attention.relative_attention_bias.weight[head + 1, head] = _BIAS


def _match_and_emit(
    attention: torch.nn.Module,
    queries: list[torch.Tensor],
    keys: list[torch.Tensor],
    d_kv: int,
) -> None:
    """Let two heads of a cross-attention compare the last tokens and emit the matching one.

    `queries[i]` reads the decoder's token i back and `keys[i]` the source's token i+1 back. Both
    are (d_kv, d_model) and map to the same code.
    """
    width = keys[0].shape[1]
    emit = _directions(width, width)
    for head, ratios in enumerate(_MATCH_RATIOS):
        rows = slice(head * d_kv, (head + 1) * d_kv)
        sizes = [round(ratio * d_kv) for ratio in ratios]
        sizes[-1] = d_kv - sum(sizes[:-1])
        start = head * d_kv
        for query, key, size in zip(queries, keys, sizes, strict=True):
            # The heads use opposite ends of the codes, so that chance matches differ.
            part = slice(0, size) if head == 0 else slice(d_kv - size, d_kv)
            attention.q.weight[start : start + size] = query[part]
            attention.k.weight[start : start + size] = key[part]
            start += size
        # A code of d_kv numbers of size 1 has the score d_kv with itself. The norms before query
        # and key shrink both by about 1.6, since codes are added to the embedding.
        scale = (_MATCH_SCORE / d_kv) ** 0.5 * 1.6
        attention.q.weight[rows] *= scale
        attention.k.weight[rows] *= scale
        seen = emit[head * d_kv : (head + 1) * d_kv]
        count = seen.shape[0]
        attention.v.weight[rows][:count] = seen
        attention.o.weight[:, rows][:, :count] = seen.T * _EMIT_SCALE


def quickstart_config(
    data: str | Path, output: str | Path, time_limit: float | str = "15m"
) -> TrainConfig:
    """The configuration of `edge quickstart` for its synthetic questions: the tiny shape.

    A slow machine makes as many steps as a fast one, so that it gets as good a model. `time_limit`
    (seconds, or text such as "3m") cuts training short; the tokenizer and the final evaluation take
    some seconds more.
    """
    from edge.train.config import TrainConfig

    return TrainConfig(
        data=data,
        output=output,
        from_scratch="tiny",
        epochs=2.0,  # new rows rather than more epochs: unseen names are copied better
        batch_size=16,  # twice the steps for the same rows: copying is learned sooner
        learning_rate=1.5e-3,
        time_limit=time_limit,
        max_source_length=64,
        max_target_length=48,
        # A second thread is 1/7 faster on an idle machine, but ten times slower where another
        # process uses a core: the threads wait for each other at every operation.
        threads=1,
        dropout=0.0,  # no row is seen often enough to be memorized, and dropout costs a third
        rename_ratio=0.0,  # the rows already have thousands of invented names
        tagging_weight=1.0,  # on easier rows, after as many steps: exact match 0.93, without 0.87
        vocab_size=600,  # small pieces: common words, too, are copied piece by piece
    )
