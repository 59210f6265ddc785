"""Markup that nothing gets into which is not markup."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.html import Html, document, join, table, tag, text


class Read(HTMLParser):
    """The elements and the text of a piece of HTML."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@given(st.text())
def test_a_text_is_only_ever_text(value: str) -> None:
    found = Read(tag("p", value, title=value))
    assert found.elements == ["p"]
    assert [name for name, _ in found.attributes] == ["title"]
    shown = str(text(value))
    assert "<" not in shown
    assert '"' not in shown


def test_markup_stays_and_the_rest_is_escaped() -> None:
    assert join(Html("<b>"), "<b>", None, 3) == "<b>&lt;b&gt;3"
    assert tag("p", tag("b", "a & b")) == "<p><b>a &amp; b</b></p>"


def test_names_of_attributes_are_written_as_html_has_them() -> None:
    found = tag("text", class_="a", text_anchor="end", hidden=True, dx=None)
    assert found == '<text class="a" text-anchor="end" hidden></text>'
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'


@pytest.mark.parametrize("bad", ["\x1b[31m", "\x00", "\u202e", "\ud800"])
def test_what_steers_a_reader_is_replaced(bad: str) -> None:
    shown = str(text(f"a{bad}b\u00a0c\n"))
    assert bad not in shown
    assert "\N{REPLACEMENT CHARACTER}" in shown
    assert shown.endswith("b\u00a0c\n")
    shown.encode("utf-8")


def test_a_table_says_what_it_is_about_and_which_cells_are_heads() -> None:
    found = table(("a", "b"), [("x", "1"), ("y", "2")], caption="About <it>", numbers=(1,))
    assert "<caption><span>About &lt;it&gt;</span></caption>" in found
    assert found.count('scope="col"') == 2
    assert found.count('scope="row"') == 2
    assert '<td class="n">1</td>' in found
    with pytest.raises(ValueError, match="zip"):
        table(("a", "b"), [("x",)])


def test_a_document_forbids_to_load_and_to_run() -> None:
    page = document("<t>", "p{color:red}", tag("p", "x"))
    assert page.startswith('<!doctype html>\n<html lang="en">')
    assert "<title>&lt;t&gt;</title>" in page
    contents = [value for name, value in Read(page).attributes if name == "content"]
    assert contents[0] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    with pytest.raises(ValueError, match="style"):
        document("t", "</style><script>", "x")
