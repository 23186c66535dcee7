"""The prompt around each input."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edge.runtime.errors import UsageError

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class Prompt:
    """The template around each input, such as `[{task}] {input}`.

    `{name}` is replaced by the value of that field. There are no expressions, so that templates
    from untrusted folders are safe.
    """

    template: str = "{input}"

    @classmethod
    def parse(cls, prefix: str | None) -> Prompt:
        """The prompt of a `--prefix`: a template, or a text to put before the input."""
        if not prefix:
            return cls()
        return cls(prefix if "{input}" in prefix else prefix + "{input}")

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields other than `input`, in order of appearance."""
        return tuple(dict.fromkeys(n for n in _FIELD.findall(self.template) if n != "input"))

    def apply(self, text: str, fields: Mapping[str, object] | None = None) -> str:
        """Fill the template.

        Args:
            text: Replaces `{input}`.
            fields: Values of the other fields; further entries are ignored.

        Raises:
            UsageError: A field is missing or not a string.
        """
        if self.template == "{input}":
            return text
        fields = fields or {}
        missing = [name for name in self.fields if not isinstance(fields.get(name), str)]
        if missing:
            raise UsageError(
                f"the prompt {self.template!r} needs the field {missing[0]!r}"
                f" (set it with --field {missing[0]}=… or as a column of the row)"
            )
        values = {**fields, "input": text}
        return _FIELD.sub(lambda match: str(values[match.group(1)]), self.template)
