"""What several tests read: the formats, texts of unequal length, a model of letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.export.source import SourceModel

FORMATS = ("onnx", "ctranslate2", "gguf", "torchscript")
TEXTS = (
    "When was the uh the old bridge of Verona built?",
    "Who wrote no sorry who painted the portrait?",
    "yes",
    "How many people, I mean, how many families lived in São Paulo in 1920 and where did they go?",
)
LETTER_PIECES = ("<pad>", "</s>", "<unk>", "▁", *map(chr, range(33, 127)), "é", "ü")


def save_letter_model(
    folder: Path,
    *,
    tied: bool = True,
    scaled: bool = True,
    seed: int = 7,
    **changes: Any,
) -> SourceModel:
    """A random T5 that reads single letters: 2 encoder and 1 decoder layers, 100 of 160 ids.

    Its weights are as small as a fresh model's, where those of `random_model` are larger, so that
    tests can hold llama.cpp, whose gelu is a table in float16, to narrow limits. 3 heads × 16 are
    not d_model 64, and the head is scaled or not whether it is tied or not.
    """
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    from edge.export.source import SourceModel

    settings: dict[str, Any] = {
        "vocab_size": 160,  # more than the tokenizer has
        "d_model": 64,
        "d_kv": 16,
        "num_heads": 3,
        "d_ff": 96,
        "num_layers": 2,
        "num_decoder_layers": 1,
        "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0,
        **changes,
    }
    torch.manual_seed(seed)
    model = T5ForConditionalGeneration(T5Config(**settings)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "relative_attention_bias" in name:
                weight.normal_(0, 1.5)  # so that a wrong bucket shows
            elif "layer_norm" in name:
                weight.uniform_(0.5, 1.5)
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight) * 0.3)
    folder.mkdir(parents=True, exist_ok=True)
    model.config.scale_decoder_outputs = scaled
    model.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"scale_decoder_outputs": scaled}), encoding="utf-8")
    _save_letter_tokenizer(folder)
    source = SourceModel.open(folder)
    assert source.architecture.tied_head is tied
    assert source.architecture.scale_decoder_outputs is scaled
    return source


def _save_letter_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    scored = [(piece, -1.0 - place) for place, piece in enumerate(LETTER_PIECES)]
    tokenizer = Tokenizer(models.Unigram(scored, 2))
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "TokenizersBackend",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
