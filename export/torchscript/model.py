"""T5 as one scriptable module: encoder, cached decoder step, and the whole greedy search.

The saved module loads with plain `torch.jit.load` and needs none of this code. TorchScript compiles
this source, so types and control flow are kept simple.

Shapes: b rows, s source tokens, n new target tokens, t target tokens in total, h heads, d = d_kv.
"""

from __future__ import annotations

import torch
from torch import nn

from edge.export.torchscript.layers import DecoderLayer, EncoderLayer, PositionBias, RmsNorm
from edge.runtime.artifact.manifest import Architecture


class Encoder(nn.Module):
    """The encoder's layers and final norm."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.bias = PositionBias(shape, bidirectional=True)
        self.layers = nn.ModuleList([EncoderLayer(shape) for _ in range(shape.num_layers)])
        self.norm = RmsNorm(shape.d_model, shape.layer_norm_epsilon)

    def forward(self, hidden: torch.Tensor, source_bias: torch.Tensor) -> torch.Tensor:
        """hidden [b, s, d_model], source_bias [b, 1, 1, s] → [b, s, d_model]."""
        bias = self.bias(0, hidden.size(1)) + source_bias
        for layer in self.layers:
            hidden = layer(hidden, bias)
        return self.norm(hidden)


class ScriptedT5(nn.Module):
    """The saved module.

    The decoder's state is a list of tensors with the batch first: the bias of the source mask
    [b, 1, 1, s], then four for each decoder layer: cross-attention keys and values [b, h, s, d],
    self-attention keys and values [b, h, t, d].
    """

    def __init__(self, shape: Architecture, *, pieces: int) -> None:
        super().__init__()
        self.pad = shape.pad_token_id
        self.ends = list(shape.all_end_token_ids)
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
        # Finite, so that a row without tokens does not give NaN.
        source_bias = (1.0 - attention_mask.float()).unsqueeze(1).unsqueeze(1) * -1e9
        encoded = self.encoder(self.shared(input_ids), source_bias)
        state = [source_bias]
        for layer in self.layers:
            key, value = layer.cross_attention.keys_values(encoded)
            empty = key.new_empty(key.size(0), key.size(1), 0, key.size(3))
            state += [key, value, empty, empty]
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
        """As `step`, with the position bias [1, h, n, t] given."""
        hidden = self.shared(tokens)
        new_state = [state[0]]
        first = 1
        for layer in self.layers:
            hidden, cache = layer(hidden, bias, state[0], state[first : first + 4])
            new_state += cache
            first += 4
        logits = self.lm_head(self.norm(hidden) * self.output_scale)
        return logits, new_state

    @torch.jit.export
    def greedy(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        max_new_tokens: int,
        min_new_tokens: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The whole greedy search.

        Args:
            input_ids, attention_mask: [b, s].
            max_new_tokens, min_new_tokens: both count eos.

        Returns:
            tokens [b, n] without the start token, padded after eos; the sums of their
            log-probabilities [b]; their numbers, including eos [b]; whether eos was reached [b].
        """
        rows = input_ids.size(0)
        state = self.encode(input_ids, attention_mask)
        # The bias of each step is the end of the last step's: a query sees distances t - 1 … 0.
        bias = self.bias(max(max_new_tokens, 1) - 1, 1)
        tokens = torch.full((rows, 1), self.start, dtype=torch.long, device=input_ids.device)
        finished = torch.zeros(rows, dtype=torch.bool, device=input_ids.device)
        lengths = torch.zeros(rows, dtype=torch.long, device=input_ids.device)
        sums = torch.zeros(rows, dtype=torch.float, device=input_ids.device)
        generated: list[torch.Tensor] = []
        for done in range(max_new_tokens):
            logits, state = self.advance(tokens, bias[:, :, :, bias.size(3) - done - 1 :], state)
            logits = logits[:, -1]
            allowed = logits[:, : self.pieces]
            if done < min_new_tokens:
                allowed = allowed.clone()
                for end in self.ends:
                    allowed[:, end] = -float("inf")
            best = allowed.argmax(dim=-1)
            log_prob = logits.gather(1, best.unsqueeze(1)).squeeze(1) - logits.logsumexp(dim=-1)
            sums = torch.where(finished, sums, sums + log_prob)
            lengths = lengths + (~finished).to(torch.long)
            best = torch.where(finished, torch.full_like(best, self.pad), best)
            generated.append(best)
            for end in self.ends:
                finished = finished | (best == end)
            if bool(finished.all()):
                break
            tokens = best.unsqueeze(1)
        return torch.stack(generated, dim=1), sums, lengths, finished
