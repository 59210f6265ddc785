"""Protocol buffers in text form, as far as a Triton ``config.pbtxt`` needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Union

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Word(str):
    """A name of an enum, which stands without quotes."""

    __slots__ = ()


Value = Union[bool, int, str, "Message", Sequence[int], Sequence[str], Sequence["Message"]]
Message = Mapping[str, Value]


def render_message(message: Message, indent: str = "") -> str:
    """The fields of a message, one a line; repeated scalars in brackets, repeated messages anew."""
    lines = []
    for name, value in message.items():
        if isinstance(value, Mapping):
            lines.append(_block(name, value, indent))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if value and isinstance(value[0], Mapping):
                lines += [_block(name, item, indent) for item in value if isinstance(item, Mapping)]
            else:
                items = ", ".join(_scalar(item) for item in value if isinstance(item, (int, str)))
                lines.append(f"{indent}{name}: [{items}]\n")
        else:
            lines.append(f"{indent}{name}: {_scalar(value)}\n")
    return "".join(lines)


def render_comment(text: str) -> str:
    """Text as comment lines; nothing in it can end the comment."""
    lines = text.split("\n")
    return "".join(f"# {''.join(c if c.isprintable() else '?' for c in line)}\n" for line in lines)


def _block(name: str, message: Message, indent: str) -> str:
    return f"{indent}{name} {{\n{render_message(message, indent + '  ')}{indent}}}\n"


def _scalar(value: bool | int | str) -> str:
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, str):
        return '"' + "".join(_ESCAPES.get(c, c) for c in value) + '"'
    return str(value).lower() if isinstance(value, bool) else str(value)
