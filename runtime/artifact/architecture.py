"""The shape of a T5-family model, as a manifest states it."""

from __future__ import annotations

from dataclasses import dataclass

from edge.runtime.artifact.dimensions import DIMENSIONS, minimum_parameters

MAX_END_TOKENS = 64


@dataclass(frozen=True)
class Architecture:
    """The shape of a T5-family encoder-decoder, with the names of transformers' `T5Config`."""

    model_type: str
    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_heads: int
    num_layers: int
    num_decoder_layers: int
    relative_attention_num_buckets: int
    relative_attention_max_distance: int
    layer_norm_epsilon: float
    dense_act_fn: str
    is_gated_act: bool
    tied_head: bool  # lm_head is the shared embedding
    scale_decoder_outputs: bool  # decoder outputs are multiplied by d_model ** -0.5
    pad_token_id: int
    eos_token_id: int
    decoder_start_token_id: int
    end_token_ids: tuple[int, ...] = ()  # any of them ends an answer; empty: eos_token_id alone

    @property
    def has_bias_per_layer(self) -> bool:
        """Whether every self-attention has a separate position bias, as in umT5."""
        return self.model_type == "umt5"

    @property
    def all_end_token_ids(self) -> tuple[int, ...]:
        """The ids that end an answer, at least one."""
        return self.end_token_ids or (self.eos_token_id,)

    @property
    def inner_dim(self) -> int:
        """Width of all heads together: num_heads × d_kv, which may differ from d_model."""
        return self.num_heads * self.d_kv

    @property
    def minimum_parameters(self) -> int:
        """See `edge.runtime.artifact.dimensions.minimum_parameters`."""
        return minimum_parameters({name: getattr(self, name) for name in DIMENSIONS})
