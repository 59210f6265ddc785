"""The report in a real browser, at the widths of a phone and a desk, in light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from parnet_deploy.bench.report.page import draw_report
from tests.bench.report.samples import make_evidence, make_full, make_report
from tests.bench.report.test_page import hostile_report
from tests.browser import Browser, Tab
from tests.conftest import find_browser

pytestmark = pytest.mark.browser

DESK, PHONE, NARROW = (1280, 800), (390, 844), (360, 740)
SIZES = (DESK, PHONE, NARROW)
REPORTS = {
    "full": make_full,
    "usual": lambda: (make_report(), make_evidence()),
    "bare": lambda: (make_report(rivals={}, split=None, roofline=None, curves=[]), {}),
    "hostile": hostile_report,
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = find_browser()
    assert path is not None
    with Browser(path, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("pages")
    found = {}
    for name, make in REPORTS.items():
        found[name] = directory / f"{name}.html"
        found[name].write_text(draw_report(*make()), encoding="utf-8")
    return found


def opened(browser: Browser, page: Path, size: tuple[int, int], *, dark: bool = False) -> Tab:
    tab = browser.open(page.as_uri(), width=size[0], height=size[1], dark=dark)
    tab.wait("document.readyState === 'complete' && document.querySelector('main')")
    return tab


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", sorted(REPORTS))
def test_nothing_is_refused_and_the_page_does_not_scroll_sideways(
    browser: Browser, pages: dict[str, Path], name: str, size: tuple[int, int], dark: bool
) -> None:
    tab = opened(browser, pages[name], size, dark=dark)
    assert tab.complaints() == []
    assert tab.eval("document.documentElement.scrollWidth") == size[0]
    assert tab.eval("innerWidth") == size[0]
    tab.close()


@pytest.mark.parametrize("size", [DESK, PHONE], ids=str)
@pytest.mark.parametrize("name", ["full", "usual", "bare"])
def test_the_first_screen_answers_the_four_questions(
    browser: Browser, pages: dict[str, Path], name: str, size: tuple[int, int]
) -> None:
    tab = opened(browser, pages[name], size)
    boxes = tab.eval(
        "['right', 'fast', 'why', 'next'].map(id => {"
        " const b = document.getElementById(id).getBoundingClientRect();"
        " return [b.left, b.top, b.right, b.bottom]; })"
    )
    assert len(boxes) == 4
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
    for ident in ("right", "fast", "why"):
        assert len(tab.text(f"#{ident} .lead")) > 20
    assert tab.text("#next code").startswith("parnet-deploy ")
    assert tab.eval("scrollY") == 0
    tab.close()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_no_text_of_a_drawing_is_cut_off(
    browser: Browser, pages: dict[str, Path], size: tuple[int, int]
) -> None:
    tab = opened(browser, pages["full"], size)
    outside = tab.eval(
        "[...document.querySelectorAll('svg text')].filter(t => {"
        " const b = t.getBoundingClientRect(), room = t.closest('main > section')"
        ".getBoundingClientRect();"
        " return b.width && (b.left < room.left - 1 || b.right > room.right + 1); })"
        ".map(t => t.textContent)"
    )
    assert outside == []
    tab.close()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_labels_of_the_parts_fit_their_boxes_and_their_colours_can_be_read(
    browser: Browser, pages: dict[str, Path], size: tuple[int, int]
) -> None:
    tab = opened(browser, pages["full"], size)
    wide = tab.eval(
        "[...document.querySelectorAll('.dag rect.heat')].flatMap(r => {"
        " const box = r.getBoundingClientRect();"
        " return [r.nextSibling, r.nextSibling.nextSibling].filter("
        "   t => t.getBoundingClientRect().width > box.width).map(t => t.textContent); })"
    )
    assert wide == []
    tab.close()


def test_the_colour_scheme_is_the_reader_s(browser: Browser, pages: dict[str, Path]) -> None:
    found = []
    for dark in (False, True):
        tab = opened(browser, pages["full"], DESK, dark=dark)
        found.append(tab.eval("getComputedStyle(document.body).backgroundColor"))
        tab.close()
    light, dark_colour = (int(colour[4:].partition(",")[0]) for colour in found)
    assert light > 200
    assert dark_colour < 60


def test_the_timeline_is_shown(browser: Browser, pages: dict[str, Path]) -> None:
    tab = opened(browser, pages["full"], DESK)
    tab.wait("document.querySelector('img').complete")
    assert tab.eval("document.querySelector('img').naturalWidth") == 960
    tab.close()


def test_hostile_names_run_nothing(browser: Browser, pages: dict[str, Path]) -> None:
    tab = opened(browser, pages["hostile"], DESK)
    assert tab.eval("document.scripts.length") == 0
    assert tab.eval("document.querySelectorAll('[onload], [onerror]').length") == 0
    assert "<script>alert(1)</script>" in tab.text("h1")
    tab.close()


def test_the_keyboard_reaches_what_scrolls(browser: Browser, pages: dict[str, Path]) -> None:
    tab = opened(browser, pages["full"], PHONE)
    scrolling = tab.eval(
        "[...document.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1 &&"
        " ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)).map(e => e.tabIndex)"
    )
    assert scrolling
    assert set(scrolling) == {0}
    tab.press("Tab")
    assert tab.eval("document.activeElement.tagName") == "A"
    tab.close()


def test_paper_shows_every_table_whole(browser: Browser, pages: dict[str, Path]) -> None:
    tab = opened(browser, pages["full"], DESK, dark=True)
    scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
    tab.call("Emulation.setEmulatedMedia", media="print", features=scheme)
    styles = tab.eval(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector("
        "'.scroll')).overflowX, getComputedStyle(document.querySelector('nav')).display]"
    )
    assert styles == ["rgb(255, 255, 255)", "visible", "none"]
    tab.close()
