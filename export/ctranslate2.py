"""The CTranslate2 exporter: CTranslate2's own T5 loader, with what it gets wrong put right.

Two things are corrected. The loader of CTranslate2 4.8.5 scales the logits of every model whose
configuration says `tie_word_embeddings`, which under transformers 5 is every T5; here the settled
architecture decides. And it fills the vocabulary up with `<extra_id_…>`, names that a T5 tokenizer
has already; here every id gets a name of its own, so that the folder also works with CTranslate2
alone (our engine does without the names).

Not offered: int16 and half-precision arithmetic, which CTranslate2's CPU backends refuse on most
processors. float16 and bfloat16 are ways to store the weights; they are computed in float32.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from edge.export.base import EIGHT_BIT, EXACT, HALF, Exporter, Tolerance
from edge.export.source import SourceModel
from edge.runtime.artifact import TOKENIZER_NAME
from edge.runtime.errors import ModelError, one_line

# What is stored → what is computed with on a CPU.
_COMPUTE_TYPES = {
    "float32": "float32",
    "float16": "float32",
    "bfloat16": "float32",
    "int8": "int8_float32",
}


class CTranslate2Exporter(Exporter):
    """Writes model.bin, config.json and shared_vocabulary.json."""

    format = "ctranslate2"
    quantizations: ClassVar[Mapping[str, str]] = {
        "float32": "no quantization",
        "int8": "8-bit weights and matrix products, per output row; the rest in float32",
        "float16": "weights stored in 16 bits, computed in float32",
        "bfloat16": "weights stored in bfloat16, computed in float32",
    }
    auto = "int8"
    aliases: ClassVar[Mapping[str, str]] = {
        "none": "float32",
        "fp32": "float32",
        "fp16": "float16",
        "bf16": "bfloat16",
        "int8_float32": "int8",
    }
    tolerances: ClassVar[Mapping[str, Tolerance]] = {
        "float32": EXACT,
        "int8": EIGHT_BIT,
        "float16": HALF,
        "bfloat16": HALF,
    }

    def write(self, source: SourceModel, quantization: str, folder: Path) -> dict[str, Any]:
        """Convert the model.

        Raises:
            ModelError: CTranslate2 has no way to say this model.
        """
        spec = _specification(source)
        tokens = vocabulary_tokens(source)
        spec.register_source_vocabulary(tokens)
        spec.register_target_vocabulary(tokens)
        _configure(spec, source, tokens)
        try:
            spec.validate()
            spec.optimize(quantization=quantization)
        except (ValueError, KeyError) as error:
            raise ModelError(
                f"{source.folder}: CTranslate2 can't hold this model ({one_line(error)})"
            ) from (error)
        spec.save(str(folder))
        return {"threads": 1, "compute_type": _COMPUTE_TYPES[quantization]}


def _specification(source: SourceModel) -> Any:
    """CTranslate2's description of the model, filled with the weights.

    It gets a copy of the model: quantizing works in place on memory that the loader shares with
    the model's tensors, and the model is what the artifact is compared with afterwards.
    """
    from ctranslate2.converters import transformers as loaders

    shape = source.architecture
    loader = loaders.MT5Loader() if shape.model_type == "mt5" else loaders.T5Loader()
    spec = loader.get_model_spec(copy.deepcopy(source.torch_model))
    if shape.scale_decoder_outputs:
        spec.decoder.scale_outputs = shape.d_model**-0.5
    else:
        from ctranslate2.specs.model_spec import OPTIONAL

        spec.decoder.scale_outputs = OPTIONAL
    return spec


def _configure(spec: Any, source: SourceModel, tokens: list[str]) -> None:
    """The part of config.json that decides what is computed."""
    shape = source.architecture
    config = spec.config
    config.eos_token = tokens[shape.eos_token_id]
    config.bos_token = tokens[shape.decoder_start_token_id]
    config.decoder_start_token = tokens[shape.decoder_start_token_id]
    # CTranslate2 adds a token that is missing, so unk must be one that there is.
    config.unk_token = "<unk>" if "<unk>" in tokens else tokens[shape.pad_token_id]
    config.layer_norm_epsilon = shape.layer_norm_epsilon


def vocabulary_tokens(source: SourceModel) -> list[str]:
    """One name for each of the vocab_size ids: the tokenizer's piece, or an unused made-up name."""
    from tokenizers import Tokenizer

    with tempfile.TemporaryDirectory() as scratch:
        source.write_tokenizer(Path(scratch))
        tokenizer = Tokenizer.from_file(str(Path(scratch) / TOKENIZER_NAME))
    pieces = [tokenizer.id_to_token(token) for token in range(source.architecture.vocab_size)]
    known = {piece for piece in pieces if piece is not None}
    seen: set[str] = set()
    names: list[str] = []
    for token, piece in enumerate(pieces):
        name = piece if piece and piece not in seen else f"<no_piece_{token}>"
        while name in seen or (name in known and name != piece):
            name = f"<{name}>"
        seen.add(name)
        names.append(name)
    return names
