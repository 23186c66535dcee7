"""Scriptable layers of T5: norm, embedding, attention, feed-forward and relative position bias.

They follow Raffel et al. 2020 (arXiv:1910.10683) and transformers' T5: attention scores are not
scaled, each stack has one relative position bias, and the norms are RMS norms. Query, key and value
projections are fused into one matrix, as are the two halves of a gated feed-forward layer.

Shapes: b rows, s source tokens, n new target tokens, t target tokens in total, h heads, d = d_kv.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.ao.nn.quantized import dynamic as nnqd
from torch.nn import functional as F

from edge.runtime.artifact.manifest import Architecture


class RmsNorm(nn.Module):
    """x / rms(x) × weight."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width), requires_grad=False)
        self.epsilon = epsilon

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Normalize the last dimension."""
        variance = hidden.pow(2).mean(-1, keepdim=True)
        return hidden * torch.rsqrt(variance + self.epsilon) * self.weight


class Int8Embedding(nn.Module):
    """An embedding with 8-bit rows and one scale per row."""

    def __init__(self, weight: torch.Tensor) -> None:
        """Quantize `weight`, float32 [vocabulary, width]."""
        super().__init__()
        largest = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
        self.register_buffer("scale", largest / 127)
        self.register_buffer("weight", torch.round(weight / (largest / 127)).to(torch.int8))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows by id: [..., width], float32."""
        return F.embedding(ids, self.weight).float() * F.embedding(ids, self.scale)


class RowInt8Linear(nnqd.Linear):
    """A linear layer with 8-bit rows, whose input is quantized to 8 bits token by token.

    torch's dynamic quantization has one scale for a whole batch, so each token is first brought to
    the range from -1 to 1. The weights are such that no sum of two products saturates at 16 bits
    (`edge.export.quantization.grid.INTEGER_ROWS`); torch would take a bit from the activations.
    """

    def __init__(self, values: np.ndarray, scales: np.ndarray) -> None:
        """Take int8 values [out, in] and their scales [out]."""
        rows, width = values.shape
        super().__init__(width, rows, bias_=False, dtype=torch.qint8)
        weight = torch._make_per_channel_quantized_tensor(
            torch.from_numpy(np.ascontiguousarray(values)),
            torch.from_numpy(np.where(scales == 0, 1, scales).astype(np.float64)),
            torch.zeros(rows, dtype=torch.int64),
            0,
        )
        self.set_weight_bias(weight, None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] → [..., out], float32."""
        largest = x.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12)
        product = torch.ops.quantized.linear_dynamic(
            x / largest, self._packed_params._packed_params, reduce_range=False
        )
        return product * largest


class FeedForward(nn.Module):
    """Norm, wi (gate and up in one matrix if gated), activation, wo, residual."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.norm = RmsNorm(shape.d_model, shape.layer_norm_epsilon)
        self.gated = shape.is_gated_act
        self.activation = shape.dense_act_fn
        self.wi = nn.Linear(shape.d_model, shape.d_ff * (2 if self.gated else 1), bias=False)
        self.wo = nn.Linear(shape.d_ff, shape.d_model, bias=False)

    def activate(self, hidden: torch.Tensor) -> torch.Tensor:
        """The activation function, by transformers' name for it."""
        if self.activation == "relu":
            return F.relu(hidden)
        if self.activation == "silu":
            return F.silu(hidden)
        if self.activation == "gelu":
            return F.gelu(hidden)
        return F.gelu(hidden, approximate="tanh")  # gelu_new

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[b, n, d_model] → [b, n, d_model]."""
        inner = self.wi(self.norm(hidden))
        if self.gated:
            gate, up = inner.chunk(2, dim=-1)
            inner = self.activate(gate) * up
        else:
            inner = self.activate(inner)
        return hidden + self.wo(inner)


class SelfAttention(nn.Module):
    """Norm, fused q/k/v, attention with position bias, output projection, residual."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.norm = RmsNorm(shape.d_model, shape.layer_norm_epsilon)
        self.heads = shape.num_heads
        self.qkv = nn.Linear(shape.d_model, 3 * shape.inner_dim, bias=False)
        self.o = nn.Linear(shape.inner_dim, shape.d_model, bias=False)

    def forward(
        self,
        hidden: torch.Tensor,
        bias: torch.Tensor,
        past_key: torch.Tensor,
        past_value: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One layer of self-attention.

        Args:
            hidden: [b, n, d_model].
            bias: broadcast to [b, h, n, t].
            past_key, past_value: [b, h, t - n, d].

        Returns:
            hidden, and the keys and values of all t positions.
        """
        query, key, value = split_heads(self.qkv(self.norm(hidden)), 3, self.heads)
        if past_key.size(2) > 0:
            key = torch.cat([past_key, key], dim=2)
            value = torch.cat([past_value, value], dim=2)
        return hidden + self.o(attend(query, key, value, bias)), key, value


class CrossAttention(nn.Module):
    """Norm, q, attention over the encoder's keys and values, output projection, residual."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.norm = RmsNorm(shape.d_model, shape.layer_norm_epsilon)
        self.heads = shape.num_heads
        self.q = nn.Linear(shape.d_model, shape.inner_dim, bias=False)
        self.kv = nn.Linear(shape.d_model, 2 * shape.inner_dim, bias=False)
        self.o = nn.Linear(shape.inner_dim, shape.d_model, bias=False)

    def keys_values(self, encoded: torch.Tensor) -> list[torch.Tensor]:
        """[key, value], each [b, h, s, d]: the same at every step, so computed once."""
        pair = split_heads(self.kv(encoded), 2, self.heads)
        return [tensor.contiguous() for tensor in pair]  # once, instead of at every step

    def forward(
        self, hidden: torch.Tensor, bias: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """hidden [b, n, d_model], bias broadcast to [b, h, n, s], key and value [b, h, s, d]."""
        query = split_heads(self.q(self.norm(hidden)), 1, self.heads)[0]
        return hidden + self.o(attend(query, key, value, bias))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.attention = SelfAttention(shape)
        self.feed_forward = FeedForward(shape)

    def forward(self, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """hidden [b, s, d_model], bias broadcast to [b, h, s, s]."""
        empty = hidden.new_empty(hidden.size(0), 1, 0, 1)
        hidden, _, _ = self.attention(hidden, bias, empty, empty)
        return self.feed_forward(hidden)


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.attention = SelfAttention(shape)
        self.cross_attention = CrossAttention(shape)
        self.feed_forward = FeedForward(shape)

    def forward(
        self,
        hidden: torch.Tensor,
        bias: torch.Tensor,
        source_bias: torch.Tensor,
        cache: list[torch.Tensor],
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """`cache`: cross key, cross value, past key, past value; returned n tokens longer."""
        hidden, key, value = self.attention(hidden, bias, cache[2], cache[3])
        hidden = self.cross_attention(hidden, source_bias, cache[0], cache[1])
        return self.feed_forward(hidden), [cache[0], cache[1], key, value]


class PositionBias(nn.Module):
    """The relative position bias of one stack, by distance (see `edge.export.position_bias`)."""

    def __init__(self, shape: Architecture, *, bidirectional: bool) -> None:
        super().__init__()
        self.reach = shape.relative_attention_max_distance
        self.bidirectional = bidirectional
        rows = 2 * self.reach + 1 if bidirectional else self.reach + 2
        self.table = nn.Parameter(torch.empty(rows, shape.num_heads), requires_grad=False)

    def forward(self, first: int, queries: int) -> torch.Tensor:
        """Bias [1, h, queries, first + queries] of queries at positions `first` and following.

        In a decoder, positions after the query are masked.
        """
        device = self.table.device
        key = torch.arange(first + queries, device=device)
        query = torch.arange(first, first + queries, device=device)
        relative = key.unsqueeze(0) - query.unsqueeze(1)
        if self.bidirectional:
            row = torch.clamp(relative, -self.reach, self.reach) + self.reach
        else:
            row = torch.clamp(-relative, -1, self.reach) + 1
        return self.table[row].permute(2, 0, 1).unsqueeze(0)


def split_heads(merged: torch.Tensor, count: int, heads: int) -> list[torch.Tensor]:
    """[b, n, count × h × d] as `count` tensors [b, h, n, d]."""
    split = merged.view(merged.size(0), merged.size(1), count, heads, -1)
    return list(split.permute(2, 0, 3, 1, 4).unbind(0))


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Attention without scaling; [b, h, n, d] in, [b, n, h × d] out."""
    scores = torch.matmul(query, key.transpose(2, 3)) + bias
    mixed = torch.matmul(torch.softmax(scores, dim=-1), value)
    return mixed.transpose(1, 2).flatten(2)
