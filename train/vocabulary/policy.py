"""`--vocabulary`: what is done about characters that a tokenizer does not bring back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.runtime.errors import DataError
from edge.runtime.printing import printable
from edge.train.vocabulary.extension import Extension, extend
from edge.train.vocabulary.lost import Lost, find_lost, is_run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONFIG_KEY = "added_characters"  # in config.json
_SHOWN = 40  # characters in a message


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer after the policy was applied.

    Attributes:
        tokenizer: The tokenizer.
        lost: The characters that the tokenizer before did not bring back.
        extension: What was added to it, or None.
    """

    tokenizer: PreTrainedTokenizerBase
    lost: Lost
    extension: Extension | None = None

    @property
    def added(self) -> dict[str, int]:
        """The id of each character that was added."""
        return {} if self.extension is None else self.extension.added

    @property
    def message(self) -> str | None:
        """One line about the lost characters; None if there are none."""
        if not self.lost:
            return None
        if self.extension is None:
            lost = describe((*self.lost.missing, *self.lost.changed))
            return f"the tokenizer does not bring back {lost} (--vocabulary extend adds them)"
        left_out = f"; {self.lost.left_out:,} rarer ones are left out" * bool(self.lost.left_out)
        return f"the vocabulary is extended by {describe(self.added)}{left_out}"


def resolve(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], policy: str) -> Vocabulary:
    """Apply a policy to a tokenizer.

    Args:
        tokenizer: The model's tokenizer.
        texts: All inputs and targets.
        policy: "extend" gives lost characters a piece, "keep" leaves the tokenizer as it is,
            "refuse" raises.

    Raises:
        DataError: Characters are lost and the policy is "refuse".
    """
    lost = lost_characters(tokenizer, texts)
    if not lost:
        return Vocabulary(tokenizer, lost)
    if policy == "refuse":
        raise DataError(
            f"the tokenizer does not bring back {describe((*lost.missing, *lost.changed))}. Remove"
            " them from the rows, or use --vocabulary extend"
        )
    if policy == "keep":
        return Vocabulary(tokenizer, lost)
    taken = {c for text in texts if not text.isascii() for c in text}
    extension = extend(_backend(tokenizer).to_str(), lost, taken=taken)
    return Vocabulary(rebuilt(tokenizer, extension.tokenizer_json), lost, extension)


def lost_characters(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Lost:
    """The lost characters of `texts`; none for a tokenizer that has no Unigram model."""
    backend = _backend(tokenizer)
    if backend is None or type(backend.model).__name__ != "Unigram":
        return Lost()
    return find_lost(texts, backend)


def rebuilt(tokenizer: PreTrainedTokenizerBase, tokenizer_json: str) -> PreTrainedTokenizerBase:
    """transformers' tokenizer around another tokenizer.json, with the same special tokens.

    Of a class that takes everything from the file: T5Tokenizer makes its own normalizer.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    make: Callable[..., Any] = PreTrainedTokenizerFast
    backend = Tokenizer.from_str(tokenizer_json)
    backend.no_truncation()
    backend.no_padding()
    named = {
        str(token) for token in (tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token)
    }
    others = [token for token in tokenizer.all_special_tokens if str(token) not in named]
    found: PreTrainedTokenizerBase = make(
        tokenizer_object=backend,
        pad_token=tokenizer.pad_token,
        eos_token=tokenizer.eos_token,
        unk_token=tokenizer.unk_token,
        extra_special_tokens=others,
        model_max_length=tokenizer.model_max_length,
        clean_up_tokenization_spaces=False,
    )
    return found


def recorded_characters(config: Mapping[str, Any]) -> dict[str, int]:
    """The added characters that the values of a config.json name, with their ids."""
    values, size = config.get(CONFIG_KEY), config.get("vocab_size", 0)
    if not isinstance(values, Mapping):
        return {}
    return {
        character: token
        for character, token in values.items()
        if (len(character) == 1 or is_run(character)) and type(token) is int and 0 <= token < size
    }


def describe(characters: Iterable[str]) -> str:
    """Characters for a message, such as "3 characters: { \\n space"."""
    names = [_name(c) for c in characters]
    shown = " ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} character{'s' * (len(names) != 1)}: {shown}{more}"


def _name(character: str) -> str:
    if len(character) > 1:
        groups = ((c, len(list(group))) for c, group in itertools.groupby(character))
        parts = (f"{n} space{'s' * (n > 1)}" if c == " " else ascii(c * n)[1:-1] for c, n in groups)
        return f"({' '.join(parts)})"
    if character == " ":
        return "repeated or outer spaces"
    if printable(character) != character or not character.isprintable():
        return ascii(character)[1:-1]
    return character


def _backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    return getattr(tokenizer, "backend_tokenizer", None)
