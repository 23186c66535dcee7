"""The model and tokenizer of a run: loaded or created, with a vocabulary for its texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge.runtime.options import GenerationOptions
from edge.train.model.from_scratch import get_shape, new_model
from edge.train.model.generation import read_generation
from edge.train.model.generation_config import complete_settings
from edge.train.model.loading import Trainable, load_pretrained
from edge.train.model.local_folder import local_folder
from edge.train.model.tokenizer import build_tokenizer, learn_escaped_pieces, save_tokenizer
from edge.train.vocabulary import Vocabulary, resolve

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from edge.train.config import ResolvedTrainConfig, RunConfig


def open_model(
    config: RunConfig, texts: Sequence[str], work_dir: Path, dev_texts: Sequence[str] = ()
) -> Trainable:
    """Load or create the model of a run, with a vocabulary for its texts.

    Args:
        config: The configuration.
        texts: The training texts, from which a new model's vocabulary is learned.
        work_dir: A folder for temporary files.
        dev_texts: Other texts whose characters the vocabulary must hold.

    Raises:
        ModelError: As `load_pretrained`.
        DataError: The texts are too few to learn a vocabulary from, or the tokenizer does not
            bring back their characters and `config.vocabulary` is "refuse".
    """
    if config.from_scratch is not None:
        return _from_scratch(config, texts, work_dir, dev_texts)
    assert config.model is not None
    bits = config.quant_bits if config.method == "qlora" else None
    trainable = load_pretrained(
        config.model,
        revision=config.revision,
        dropout=config.dropout,
        quant_bits=bits,
        tokenizer_folder=config.tokenizer,
    )
    saved = read_generation(local_folder(config.model, config.revision))
    trainable.generation = complete_settings(trainable.model, saved, config.max_target_length)
    trainable.end_token_ids = saved.end_token_ids
    trainable.warnings += saved.warnings
    vocabulary = resolve(trainable.tokenizer, [*texts, *dev_texts], config.vocabulary)
    if vocabulary.extension is not None:
        trainable.extend_by(vocabulary.tokenizer, vocabulary.added, vocabulary.extension.related)
    _report(trainable, vocabulary)
    return trainable


def _from_scratch(
    config: RunConfig, texts: Sequence[str], work_dir: Path, dev_texts: Sequence[str]
) -> Trainable:
    assert config.from_scratch is not None
    shape = get_shape(config.from_scratch)
    tokenizer = new_tokenizer(config, texts, work_dir)
    vocabulary = learn_escaped_pieces(
        resolve(tokenizer, [*texts, *dev_texts], config.vocabulary), texts
    )
    model = new_model(
        shape,
        vocab_size=len(vocabulary.tokenizer),
        dropout=config.dropout,
        seed=config.seed,
    )
    model.generation_config.max_new_tokens = config.max_target_length
    name = f"from scratch ({config.from_scratch})"
    generation = GenerationOptions(max_new_tokens=config.max_target_length)
    trainable = Trainable(model, vocabulary.tokenizer, name, [], generation=generation)
    trainable.record_characters(vocabulary.added)
    _report(trainable, vocabulary)
    return trainable


def _report(trainable: Trainable, vocabulary: Vocabulary) -> None:
    if (message := vocabulary.message) is not None:
        (trainable.notes if vocabulary.added else trainable.warnings).append(message)


def new_tokenizer(
    config: ResolvedTrainConfig, texts: Iterable[str], work_dir: Path
) -> PreTrainedTokenizerBase:
    """Train a tokenizer on `texts`, save it in `work_dir` and load it from there.

    Raises:
        DataError: The texts are too few.
    """
    from transformers import AutoTokenizer

    assert config.vocab_size is not None
    pieces = build_tokenizer(texts, vocab_size=config.vocab_size)
    save_tokenizer(pieces, work_dir, model_max_length=config.max_source_length)
    return AutoTokenizer.from_pretrained(str(work_dir), trust_remote_code=False)
