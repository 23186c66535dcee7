"""T5 as scriptable modules: encoder, cached decoder step and the whole greedy loop.

What is saved from here loads with plain `torch.jit.load` and needs none of this code. The modules
follow Raffel et al. 2020 (arXiv:1910.10683) and transformers' T5: no scaling of attention scores,
one relative position bias per stack, RMS norms without a mean. Query, key and value projections
are fused into one matrix, and so are the two halves of a gated feed-forward layer.

Shapes: b rows, s source tokens, n new target tokens, t target tokens in all, h heads, d = d_kv.
TorchScript compiles this source, so its types and its control flow stay plain.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from edge.runtime.artifact.manifest import Architecture


class RmsNorm(nn.Module):
    """x / rms(x) × weight."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width), requires_grad=False)
        self.epsilon = epsilon

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        variance = hidden.pow(2).mean(-1, keepdim=True)
        return hidden * torch.rsqrt(variance + self.epsilon) * self.weight


class Int8Embedding(nn.Module):
    """Embedding rows in 8 bits, each with a scale of its own."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        largest = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
        self.register_buffer("scale", largest / 127)
        self.register_buffer("weight", torch.round(weight / (largest / 127)).to(torch.int8))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return F.embedding(ids, self.weight).float() * F.embedding(ids, self.scale)


class FeedForward(nn.Module):
    """Norm, wi (gate and up side by side where gated), activation, wo, residual."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.norm = RmsNorm(shape.d_model, shape.layer_norm_epsilon)
        self.gated = shape.is_gated_act
        self.activation = shape.dense_act_fn
        self.wi = nn.Linear(shape.d_model, shape.d_ff * (2 if self.gated else 1), bias=False)
        self.wo = nn.Linear(shape.d_ff, shape.d_model, bias=False)

    def activate(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.activation == "relu":
            return F.relu(hidden)
        if self.activation == "silu":
            return F.silu(hidden)
        if self.activation == "gelu":
            return F.gelu(hidden)
        return F.gelu(hidden, approximate="tanh")  # gelu_new

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
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
        """hidden [b, n, d_model], bias broadcast to [b, h, n, t], past [b, h, t - n, d].

        Returns hidden and the keys and values of all t positions.
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
        parts = split_heads(self.kv(encoded), 2, self.heads)
        return [part.contiguous() for part in parts]  # else every step would lay them out anew

    def forward(
        self, hidden: torch.Tensor, bias: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        query = split_heads(self.q(self.norm(hidden)), 1, self.heads)[0]
        return hidden + self.o(attend(query, key, value, bias))


class EncoderLayer(nn.Module):
    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.attention = SelfAttention(shape)
        self.feed_forward = FeedForward(shape)

    def forward(self, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        nothing = hidden.new_empty(hidden.size(0), 1, 0, 1)
        hidden, _, _ = self.attention(hidden, bias, nothing, nothing)
        return self.feed_forward(hidden)


class DecoderLayer(nn.Module):
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
        """`cache` is cross key, cross value, past key, past value; returned n tokens longer."""
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
        """Bias [1, h, queries, first + queries] of the queries from position `first` on; in a
        decoder, positions after the query's own are masked."""
        device = self.table.device
        key = torch.arange(first + queries, device=device)
        query = torch.arange(first, first + queries, device=device)
        relative = key.unsqueeze(0) - query.unsqueeze(1)
        if self.bidirectional:
            row = torch.clamp(relative, -self.reach, self.reach) + self.reach
        else:
            row = torch.clamp(-relative, -1, self.reach) + 1
        return self.table[row].permute(2, 0, 1).unsqueeze(0)


class Encoder(nn.Module):
    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.bias = PositionBias(shape, bidirectional=True)
        self.layers = nn.ModuleList([EncoderLayer(shape) for _ in range(shape.num_layers)])
        self.norm = RmsNorm(shape.d_model, shape.layer_norm_epsilon)

    def forward(self, hidden: torch.Tensor, source_bias: torch.Tensor) -> torch.Tensor:
        bias = self.bias(0, hidden.size(1)) + source_bias
        for layer in self.layers:
            hidden = layer(hidden, bias)
        return self.norm(hidden)


class ScriptedT5(nn.Module):
    """The module that is saved.

    A state is a list of tensors with the batch first: the source mask's bias [b, 1, 1, s], then
    four for each decoder layer: cross-attention keys and values [b, h, s, d], self-attention keys
    and values [b, h, t, d].
    """

    def __init__(self, shape: Architecture, *, pieces: int) -> None:
        super().__init__()
        self.pad = shape.pad_token_id
        self.eos = shape.eos_token_id
        self.start = shape.decoder_start_token_id
        self.pieces = pieces
        self.output_scale = shape.d_model**-0.5 if shape.scale_decoder_outputs else 1.0
        self.shared: nn.Module = nn.Embedding(shape.vocab_size, shape.d_model)
        self.encoder = Encoder(shape)
        self.bias = PositionBias(shape, bidirectional=False)
        layers = [DecoderLayer(shape) for _ in range(shape.num_decoder_layers)]
        self.layers = nn.ModuleList(layers)
        self.norm = RmsNorm(shape.d_model, shape.layer_norm_epsilon)
        self.lm_head = nn.Linear(shape.d_model, shape.vocab_size, bias=False)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, decoder_input_ids: torch.Tensor
    ) -> torch.Tensor:
        """Logits [b, n, vocab_size] of given decoder inputs (the start token first)."""
        return self.step(decoder_input_ids, self.encode(input_ids, attention_mask))[0]

    @torch.jit.export
    def encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> list[torch.Tensor]:
        """The state before the first step, from ids and mask [b, s] (1: token, 0: padding)."""
        # Finite, so that a row without any token gives no NaN.
        source_bias = (1.0 - attention_mask.float()).unsqueeze(1).unsqueeze(1) * -1e9
        encoded = self.encoder(self.shared(input_ids), source_bias)
        state = [source_bias]
        for layer in self.layers:
            key, value = layer.cross_attention.keys_values(encoded)
            nothing = key.new_empty(key.size(0), key.size(1), 0, key.size(3))
            state += [key, value, nothing, nothing]
        return state

    @torch.jit.export
    def step(
        self, tokens: torch.Tensor, state: list[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Append tokens [b, n]: logits [b, n, vocab_size] and the new state."""
        return self.advance(tokens, self.bias(state[3].size(2), tokens.size(1)), state)

    def advance(
        self, tokens: torch.Tensor, bias: torch.Tensor, state: list[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        hidden = self.shared(tokens)
        following = [state[0]]
        place = 1
        for layer in self.layers:
            hidden, cache = layer(hidden, bias, state[0], state[place : place + 4])
            following += cache
            place += 4
        logits = self.lm_head(self.norm(hidden) * self.output_scale)
        return logits, following

    @torch.jit.export
    def greedy(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        max_new_tokens: int,
        min_new_tokens: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The whole greedy search.

        Returns tokens [b, n] without the start token, padded after eos; the sum of their
        log-probabilities [b]; how many there are [b], eos counted; whether eos ended them [b].
        """
        rows = input_ids.size(0)
        state = self.encode(input_ids, attention_mask)
        # Every step's bias is the end of the last one's: a query sees distances t - 1 … 0.
        bias = self.bias(max(max_new_tokens, 1) - 1, 1)
        tokens = torch.full((rows, 1), self.start, dtype=torch.long, device=input_ids.device)
        finished = torch.zeros(rows, dtype=torch.bool, device=input_ids.device)
        lengths = torch.zeros(rows, dtype=torch.long, device=input_ids.device)
        sums = torch.zeros(rows, dtype=torch.float, device=input_ids.device)
        found: list[torch.Tensor] = []
        for done in range(max_new_tokens):
            logits, state = self.advance(tokens, bias[:, :, :, bias.size(3) - done - 1 :], state)
            logits = logits[:, -1]
            allowed = logits[:, : self.pieces]
            if done < min_new_tokens:
                allowed = allowed.clone()
                allowed[:, self.eos] = -float("inf")
            best = allowed.argmax(dim=-1)
            log_prob = logits.gather(1, best.unsqueeze(1)).squeeze(1) - logits.logsumexp(dim=-1)
            sums = torch.where(finished, sums, sums + log_prob)
            lengths = lengths + (~finished).to(torch.long)
            best = torch.where(finished, torch.full_like(best, self.pad), best)
            found.append(best)
            finished = finished | (best == self.eos)
            if bool(finished.all()):
                break
            tokens = best.unsqueeze(1)
        return torch.stack(found, dim=1), sums, lengths, finished


def split_heads(merged: torch.Tensor, parts: int, heads: int) -> list[torch.Tensor]:
    """[b, n, parts × h × d] as `parts` tensors [b, h, n, d]."""
    split = merged.view(merged.size(0), merged.size(1), parts, heads, -1)
    return list(split.permute(2, 0, 3, 1, 4).unbind(0))


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Attention without scaling; [b, h, n, d] in, [b, n, h × d] out."""
    scores = torch.matmul(query, key.transpose(2, 3)) + bias
    mixed = torch.matmul(torch.softmax(scores, dim=-1), value)
    return mixed.transpose(1, 2).flatten(2)
