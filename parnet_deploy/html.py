"""HTML and SVG for reports that are one file: what is not ``Html`` yet is escaped, always.

A page that is made here loads nothing and runs nothing: its policy forbids both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from unicodedata import category

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_OTHER = "\N{REPLACEMENT CHARACTER}"
_VOID = frozenset({"meta", "br", "img", "hr", "col"})


class Html(str):
    """Text that is markup already. Only this module should make it of a plain text."""

    __slots__ = ()


def text(value: object) -> Html:
    """Markup as it is; anything else escaped, without characters that no page may hold."""
    if isinstance(value, Html):
        return value
    return Html(escape("".join(c if _may_stand(c) else _OTHER for c in str(value))))


def _may_stand(character: str) -> bool:
    """Not what steers a terminal or turns the direction of a text, and no half of a character."""
    return character.isprintable() or character in "\n\t" or category(character) == "Zs"


def join(*items: object) -> Html:
    """One piece after the other; None is nothing."""
    return Html("".join(text(item) for item in items if item is not None))


def tag(name: str, /, *content: object, **attributes: object) -> Html:
    """An element. Of attributes ``text_anchor`` becomes text-anchor and ``class_`` becomes class.

    An attribute that is None is left out; one that is True has no value.
    """
    words = [name]
    for key, value in attributes.items():
        word = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(word)
        elif value is not None:
            words.append(f'{word}="{text(value)}"')
    start = f"<{' '.join(words)}>"
    return Html(start if name in _VOID else f"{start}{join(*content)}</{name}>")


def table(
    heads: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    caption: object = None,
    numbers: Iterable[int] = (),
    class_: str | None = None,
) -> Html:
    """A table whose first column names its rows.

    Args:
        heads: Names of the columns.
        rows: Cells, as many as there are heads.
        caption: What the table is about; every table of a page should have one.
        numbers: Columns of figures, aligned right.
        class_: Of the table.
    """
    right = frozenset(numbers)
    kind = ["n" if i in right else None for i in range(len(heads))]
    head = [tag("th", name, scope="col", class_=k) for name, k in zip(heads, kind, strict=True)]
    body = []
    for row in rows:
        first, *others = zip(row, kind, strict=True)
        cells = [tag("td", cell, class_=k) for cell, k in others]
        body.append(tag("tr", tag("th", first[0], scope="row", class_=first[1]), *cells))
    return tag(
        "table",
        None if caption is None else tag("caption", tag("span", caption)),
        tag("thead", tag("tr", *head)),
        tag("tbody", *body),
        class_=class_,
    )


def document(title: str, style: str, *body: object) -> str:
    """A whole page. ``style`` is CSS of this package; nothing of it may come from a report."""
    if "</" in style:
        raise ValueError("style: it would end its own element")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(style)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', *body), lang='en')}\n"
