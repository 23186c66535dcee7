"""Texts to the token ids that an engine reads: prompt, tokenizer and limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge.runtime.artifact.manifest import Limits
from edge.runtime.errors import InputTooLongError, UsageError
from edge.runtime.guardrails import OnLong, check_on_long, without_prefix
from edge.runtime.rows import Prompt
from edge.runtime.text.tokenization import Tokenizer, cut_ids

Fields = Mapping[str, object]
# More than the tokens of any text have on average; T5's longest piece has 48. Only white space,
# which is collapsed, and runs of characters that the vocabulary lacks can have more.
_MAX_BYTES_PER_TOKEN = 64
# The same for many inputs' worth of tokens.
_MAX_BYTES_PER_TOKEN_IN_PARTS = 16


class InputEncoder:
    """Applies the prompt, tokenizes and enforces the input limit.

    Args:
        tokenizer: The artifact's tokenizer.
        prompt: The template around each text.
        limits: The limits in force.
        vocab_size: Number of ids that the model embeds.
        enforce_prefix: Whether a text that already starts with the prompt's prefix gets it only
            once.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Prompt,
        limits: Limits,
        *,
        vocab_size: int,
        enforce_prefix: bool = True,
    ) -> None:
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.limits = limits
        self._vocab_size = vocab_size
        self._enforce_prefix = enforce_prefix

    def apply_prompt(self, text: str, fields: Fields) -> str:
        """The text with the prompt around it.

        Raises:
            UsageError: A field of the prompt is missing, or the text is not valid Unicode.
        """
        if self._enforce_prefix:
            text = without_prefix(text, self.prompt, fields)
        prompted = self.prompt.apply(text, fields)
        try:
            prompted.encode("utf-8")
        except UnicodeEncodeError as error:  # for example "\ud800" from JSON
            raise UsageError(
                f"the text is not valid Unicode: lone surrogate at character {error.start}"
            ) from None
        return prompted

    def tokenize_start(
        self, text: str, fields: Fields, *, parts: int = 1
    ) -> tuple[list[int], bool]:
        """Token ids of one text with its prompt, or of its start if it can't fit.

        Tokenizing takes time in proportion to the length, so that a text far over the limit is cut
        before it.

        Args:
            text: The text.
            fields: Values of the prompt's other fields.
            parts: Number of inputs that the text may be split into.

        Returns:
            The ids, eos last, of any length; and whether the text was cut.

        Raises:
            UsageError: See `apply_prompt`.
        """
        prompted, cut = self._cut(self.apply_prompt(text, fields), parts)
        return self.tokenizer.encode([prompted])[0], cut

    def _cut(self, prompted: str, parts: int = 1) -> tuple[str, bool]:
        per_token = _MAX_BYTES_PER_TOKEN if parts == 1 else _MAX_BYTES_PER_TOKEN_IN_PARTS
        limit = self.limits.max_input_tokens * max(_MAX_BYTES_PER_TOKEN, parts * per_token)
        content = prompted.encode()
        if len(content) <= limit:
            return prompted, False
        return content[:limit].decode(errors="ignore"), True

    def tokenize(self, text: str, fields: Fields) -> list[int]:
        """Token ids of one text with its prompt, eos last, of any length.

        Raises:
            UsageError: See `apply_prompt`.
        """
        return self.tokenizer.encode([self.apply_prompt(text, fields)])[0]

    def encode(
        self, texts: Sequence[str], fields: Fields | Sequence[Fields] | None, on_long: OnLong
    ) -> tuple[list[list[int]], list[bool]]:
        """Token ids of each text with its prompt, eos last, and whether each was truncated.

        Raises:
            UsageError: A field of the prompt is missing, or `on_long` is unknown.
            InputTooLongError: An input over the limit, unless `on_long` is "truncate".
        """
        check_on_long(on_long)
        pairs = zip(texts, fields_per_text(texts, fields), strict=True)
        starts = [self._cut(self.apply_prompt(text, values)) for text, values in pairs]
        rows = self.tokenizer.encode([start for start, _ in starts])
        limit = self.limits.max_input_tokens
        if on_long != "truncate":
            for row, (_, cut) in zip(rows, starts, strict=True):
                self.check_length(len(row), cut=cut)
        truncated = [cut or len(row) > limit for row, (_, cut) in zip(rows, starts, strict=True)]
        return [self.truncate(row) for row in rows], truncated

    def truncate(self, ids: Sequence[int]) -> list[int]:
        """The first tokens up to the limit; if there are more, the last of them becomes eos."""
        return cut_ids(ids, self.limits.max_input_tokens, self.tokenizer.eos)

    def check_length(self, length: int, *, cut: bool = False) -> None:
        """Check a number of input tokens against the limit.

        Args:
            length: Number of tokens.
            cut: Whether they are only the start of the input.

        Raises:
            InputTooLongError: It is over the limit, or the input was cut.
        """
        limit = self.limits.max_input_tokens
        if cut or length > limit:
            count = f"more than {max(length, limit)}" if cut else str(length)
            raise InputTooLongError(
                f"the input has {count} tokens, this artifact takes {limit}; shorten it, or set"
                " on_long (--on-long) to 'truncate' or 'chunk'"
            )

    def check_token_ids(self, row: Sequence[int]) -> list[int]:
        """A row of token ids as a list of ints.

        Raises:
            UsageError: The row is empty, or an id is outside the vocabulary.
        """
        ids = [int(token) for token in row]
        if not ids:
            raise UsageError("a row of token ids is empty")
        if min(ids) < 0 or max(ids) >= self._vocab_size:
            raise UsageError(f"token ids must be from 0 to {self._vocab_size - 1}")
        return ids


def fields_per_text(
    texts: Sequence[str], fields: Fields | Sequence[Fields] | None
) -> Sequence[Fields]:
    """The prompt's fields for each text.

    Raises:
        UsageError: A text is not a str, or the number of field mappings is not that of the texts.
    """
    for text in texts:
        if not isinstance(text, str):
            raise UsageError(f"a text must be a str, not {type(text).__name__}")
    if fields is None or isinstance(fields, Mapping):
        return [fields or {}] * len(texts)
    if len(fields) != len(texts):
        raise UsageError(f"{len(texts)} texts but {len(fields)} sets of fields")
    return fields
