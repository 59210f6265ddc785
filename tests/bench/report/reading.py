"""What a page holds, as a browser would take it apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br"}


@dataclass
class Element:
    """An element, its attributes and all text in it."""

    name: str
    attributes: dict[str, str | None]
    inside: tuple[str, ...]
    text: str = ""
    children: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """Every element in the order of its start; refuses what is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(page)
        self.close()
        assert not self._open, f"never closed: {[e.name for e in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        inside = tuple(element.name for element in self._open)
        found = Element(name=tag, attributes=dict(attrs), inside=inside)
        assert len(attrs) == len(found.attributes), f"twice the same attribute: {attrs}"
        for element in self._open[-1:]:
            element.children.append(tag)
        self.elements.append(found)
        if tag not in VOID:
            self._open.append(found)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().name == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, name: str, **attributes: str) -> list[Element]:
        """Elements of this name with these attributes; ``class_`` is one of its classes."""
        return [e for e in self.elements if e.name == name and _has(e, attributes)]

    def one(self, name: str, **attributes: str) -> Element:
        """The only one."""
        (found,) = self.all(name, **attributes)
        return found


def _has(element: Element, wanted: dict[str, str]) -> bool:
    for key, value in wanted.items():
        found = element.attributes.get(key.rstrip("_")) or ""
        if value not in found.split() if key == "class_" else value != found:
            return False
    return True
