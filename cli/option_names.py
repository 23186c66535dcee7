"""Names of options in messages of the library, which names its own arguments."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import click

# What a message is about: one of these may be an ordinary word, such as "regex".
_SUBJECT = re.compile(
    r"([a-z_]+(?: and [a-z_]+)*)(?= can't be combined| must | needs | holds | is )"
)
# An argument with an underscore; not a part of a path or of another word.
_ARGUMENT = re.compile(r"(?<![\w./\\'\"-])[a-z]+(?:_[a-z]+)+(?![\w/\\-])")
_PHRASES = {
    "can't be streamed; use generate": "can't be streamed; leave out --stream",
    "use num_beams 1 (--num-beams 1)": "use --num-beams 1",
}
_ALIASES = {"stop_strings": "stop"}  # argument → parameter


def with_option_names(message: str, params: Collection[click.Parameter]) -> str:
    """The message with the command's options in place of the arguments that they set.

    Args:
        message: Such as "max_new_tokens must be a whole number", or several with "; ".
        params: The command's parameters.
    """
    options = {
        param.name: max(param.opts, key=len)
        for param in params
        if isinstance(param, click.Option) and param.name is not None
    }
    options |= {name: options[other] for name, other in _ALIASES.items() if other in options}
    for phrase, instead in _PHRASES.items():
        message = message.replace(phrase, instead)
    return "; ".join(_renamed(part, options) for part in message.split("; "))


def _renamed(sentence: str, options: Mapping[str, str]) -> str:
    def option(found: re.Match[str]) -> str:
        return options.get(found[0], found[0])

    subject = _SUBJECT.match(sentence)
    if subject is None:
        return _ARGUMENT.sub(option, sentence)
    names = " and ".join(options.get(name, name) for name in subject[1].split(" and "))
    return names + _ARGUMENT.sub(option, sentence[subject.end() :])
