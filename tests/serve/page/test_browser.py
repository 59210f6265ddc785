"""The page in a real browser: what a person does and sees, against a server with known answers."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parnet_deploy.classify import softmax
from parnet_deploy.preprocess import Preprocessing
from tests.browser import Browser, Tab
from tests.conftest import find_browser
from tests.serve.page.stub_server import CARDS, LABELS, Stub, logits_of, running

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = find_browser()
    assert path is not None
    with Browser(path, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
def server(stub: Stub) -> Iterator[str]:
    with running(stub) as url:
        yield url


@pytest.fixture
def tab(browser: Browser, server: str) -> Iterator[Tab]:
    found = browser.open(server)
    found.wait_shown("#facts")
    yield found
    found.close()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return picture(tmp_path / "photo.png", (200, 150, 100))


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (90, 60)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def classes(tab: Tab) -> list[tuple[str, str]]:
    rows = tab.eval(
        "[...document.querySelectorAll('#classes li')].map(row => [row.children[0].innerText,"
        " row.children[1].innerText])"
    )
    return [(name, share) for name, share in rows]


def expected_classes(path: Path, count: int = 5) -> list[tuple[str, str]]:
    shares = softmax(logits_of(path.read_bytes()).astype(np.float32)[None])[0]
    best = np.argsort(-shares, kind="stable")[:count]
    return [
        (LABELS[k], "< 0.1 %" if shares[k] < 0.0005 else f"{100 * shares[k]:.1f} %") for k in best
    ]


def pairs(tab: Tab, list_id: str) -> dict[str, str]:
    found: list[tuple[str, str]] = tab.eval(
        f"[...document.querySelectorAll('#{list_id} div')].map(row => [row.children[0].innerText,"
        " row.children[1].innerText])"
    )
    return dict(found)


def test_a_dropped_picture_is_classified(tab: Tab, photo: Path) -> None:
    tab.drop(photo)
    tab.wait_shown("#result")
    assert classes(tab) == expected_classes(photo)
    widths = tab.eval("[...document.querySelectorAll('.bar span')].map(bar => bar.style.width)")
    shares = np.sort(softmax(logits_of(photo.read_bytes()).astype(np.float32)[None])[0])[::-1]
    np.testing.assert_allclose([float(w.rstrip("%")) / 100 for w in widths], shares[:5], rtol=1e-4)
    tab.wait("document.getElementById('image').naturalWidth === 90")
    assert tab.text("#said").startswith("Most likely red, ")
    assert tab.complaints() == []


def test_the_time_is_split_as_the_server_says(tab: Tab, photo: Path) -> None:
    tab.drop(photo)
    tab.wait_shown("#result")
    found = {name: float(ms.removesuffix(" ms")) for name, ms in pairs(tab, "parts").items()}
    wire = found.pop("Network and browser")
    assert found == {
        "Receive and answer": 0.5,
        "Prepare image": 1.25,
        "Wait for engine": 0.5,
        "Engine, a batch of 2": 3.75,
    }
    total = float(tab.text("#total").removesuffix(" ms"))
    assert wire >= 0  # the stub may be faster than it says
    assert math.isclose(total, wire + 6.0, rel_tol=0.02)
    grown = tab.eval("[...document.querySelectorAll('#split span')].map(p => +p.style.flexGrow)")
    assert grown[1:] == [0.5, 1.25, 0.5, 3.75]


def test_a_series_is_run_one_after_the_other(tab: Tab, stub: Stub, photo: Path) -> None:
    tab.drop(photo)
    tab.wait_shown("#result")
    tab.click("#repeat")
    tab.wait("document.getElementById('series').textContent.includes('median')")
    assert len(stub.asked) == 21
    assert re.match(r"20 runs, .*median .* ms \(.* to .*\); engine 3.75 ms$", tab.text("#series"))


def test_more_classes_are_shown_on_demand(tab: Tab, photo: Path) -> None:
    tab.pick("#file", [photo])
    tab.wait_shown("#result")
    assert tab.text("#more") == "Show 10 more of 25"
    for count in (15, 25, 30):
        tab.click("#more")
        assert len(classes(tab)) == count
    assert classes(tab) == expected_classes(photo, 30)
    assert not tab.shown("#more")


def test_a_pasted_picture_is_classified(tab: Tab, photo: Path) -> None:
    data = list(photo.read_bytes())
    tab.eval(
        "(() => { const transfer = new DataTransfer();"
        f"transfer.items.add(new File([new Uint8Array({data})], 'image.png'));"
        "document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: transfer,"
        " bubbles: true})); })()"
    )
    tab.wait_shown("#result")
    assert classes(tab) == expected_classes(photo)


def test_pasted_text_is_no_picture(tab: Tab, stub: Stub) -> None:
    tab.eval(
        "(() => { const transfer = new DataTransfer(); transfer.setData('text/plain', 'words');"
        "document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: transfer,"
        " bubbles: true})); })()"
    )
    tab.wait_shown("#problem")
    assert "no image" in tab.text("#problem-text")
    assert stub.asked == []


@pytest.mark.parametrize("size", [(900, 600), (300, 1000), (224, 224)])
def test_the_frame_is_what_the_network_sees(
    tab: Tab, tmp_path: Path, size: tuple[int, int]
) -> None:
    tab.drop(picture(tmp_path / "wide.png", (10, 20, 30), size))
    tab.wait(
        "document.getElementById('image').naturalWidth && document.getElementById("
        "'crop-note').textContent"
    )
    left, top, width, height = tab.eval(
        "(() => { const c = document.getElementById('crop').getBoundingClientRect(), f = "
        "document.getElementById('frame').getBoundingClientRect(); return [(c.x - f.x) / f.width,"
        " (c.y - f.y) / f.height, c.width / f.width, c.height / f.height]; })()"
    )
    how = Preprocessing()
    rows, columns = how.scaled_size(size[1], size[0])
    assert width == pytest.approx(how.width / columns, abs=0.01)
    assert height == pytest.approx(how.height / rows, abs=0.01)
    assert left == pytest.approx((1 - width) / 2, abs=0.01)
    assert top == pytest.approx((1 - height) / 2, abs=0.01)


def test_a_file_that_is_no_image_gets_the_servers_own_words(
    tab: Tab, tmp_path: Path, photo: Path
) -> None:
    note = tmp_path / "note.txt"
    note.write_text("words")
    tab.drop(note)
    tab.wait_shown("#problem")
    assert tab.text("#problem-text") == "image: got no image, expected PNG, JPEG. Send one."
    assert not tab.shown("#retry"), "the same again would fail again"
    tab.wait_shown("#no-preview")
    tab.drop(photo)
    tab.wait_shown("#result")
    assert not tab.shown("#problem")
    assert not tab.shown("#no-preview")


def test_a_busy_server_is_asked_again_after_the_time_it_names(
    tab: Tab, stub: Stub, photo: Path
) -> None:
    stub.refuse = [(503, "queue: full.", {"Retry-After": "1"})]
    tab.drop(photo)
    tab.wait("document.getElementById('problem-next').textContent === 'Trying again in 1 s.'")
    assert tab.text("#problem-text") == "queue: full."
    tab.wait_shown("#result")
    assert len(stub.asked) == 2


def test_a_server_that_stays_busy_is_left_alone(tab: Tab, stub: Stub, photo: Path) -> None:
    stub.refuse = [(503, f"busy {n}", {"Retry-After": "0"}) for n in range(4)]
    tab.drop(photo)
    tab.wait("document.getElementById('problem-text').textContent === 'busy 3'")
    tab.wait_shown("#retry")
    assert len(stub.asked) == 4
    tab.click("#retry")
    tab.wait_shown("#result")


def test_an_error_that_is_not_json_is_shown_too(tab: Tab, stub: Stub, photo: Path) -> None:
    stub.refuse = [(502, "<b>from a proxy</b>", {})]
    tab.drop(photo)
    tab.wait_shown("#problem")
    assert tab.text("#problem-text") == "<b>from a proxy</b>"


def test_a_token_is_asked_for_and_kept_in_memory_only(
    browser: Browser, server: str, stub: Stub, photo: Path
) -> None:
    stub.token = "s3cret"
    tab = browser.open(server)
    for typed in ("wrong", "s3cret"):
        tab.wait_shown("#token-form")
        tab.wait("document.activeElement.id === 'token'")
        tab.type(typed)
        tab.press("Enter", "\r")
        tab.wait(
            f"document.getElementById('token-form').hidden || {json.dumps(typed)} === 'wrong' "
            "&& document.querySelector('#token-form label').innerText.includes('got another')"
        )
    tab.wait_shown("#facts")
    tab.drop(photo)
    tab.wait_shown("#result")
    assert classes(tab) == expected_classes(photo)
    assert "s3cret" not in tab.eval("document.documentElement.outerHTML")
    assert "$TOKEN" in tab.text("#code")
    kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    assert tab.eval(kept) == '[{},{},""]'
    tab.close()


def test_a_server_that_went_away_is_awaited(browser: Browser, stub: Stub, photo: Path) -> None:
    with running(stub) as url:
        tab = browser.open(url)
        tab.wait_shown("#facts")
    tab.drop(photo)
    tab.wait_shown("#problem")
    assert "cannot be reached" in tab.text("#problem-text")
    assert tab.text("#health-text") == "no answer"
    for _ in range(3):
        tab.click("#retry")
        tab.wait_shown("#problem")
    stub.asked.clear()
    with running(stub, port=int(url.rstrip("/").rpartition(":")[2])):
        tab.wait_shown("#result")
        assert classes(tab) == expected_classes(photo)
        assert tab.text("#health-text") == "ready"
        assert stub.asked == ["colours"], "once, however often it was tried before"
    tab.close()


def test_models_can_be_chosen_and_their_names_are_text(tab: Tab, stub: Stub, photo: Path) -> None:
    tab.drop(photo)
    tab.wait_shown("#result")
    other = str(CARDS[1]["name"])
    tab.eval(
        "(() => { const list = document.getElementById('models'); list.selectedIndex = 1;"
        "list.dispatchEvent(new Event('change')); })()"
    )
    tab.wait("document.querySelector('#classes .class').innerText === 'class 0'")
    assert stub.asked == ["colours", other]
    assert tab.text("#facts dd") == other
    assert tab.eval("document.title") == f"{other} - parnet_deploy"
    assert "bare%20%3Ci%3Emodel" in tab.text("#code")


def test_the_card_says_what_is_known(tab: Tab) -> None:
    facts = pairs(tab, "facts")
    assert facts["Digest"] == CARDS[0]["digest"][:16]
    assert facts["Input size"] == "224 \u00d7 224"
    assert facts["Image"].startswith("scaled to cover 224 \u00d7 224 (bicubic), the middle 87.5 %")
    assert facts["Classes"].startswith("30: red, green, blue, ")
    assert facts["Engine time"] == "53.7 ms, median when built"
    assert facts["Placement"] == "one engine, device 0 (one)"
    assert facts["Parameters"] == "80,754"
    assert facts["Inputs"] == "image: FP32 [any, 3, 224, 224]\nencoded_image: BYTES [any, 1]"
    assert pairs(tab, "checks") == {
        "Fused against the trained network": "passed: 5.0e-7 of the largest value, limit 0.00001",
        "Exported graphs against the trained network": (
            "FAILED: 2.0e-4 of the largest value, limit 0.0001"
        ),
        "Engines when they were opened": "passed: 2.0e-7 of the largest value, limit 0.0001",
    }


def test_a_server_without_cards_is_used_all_the_same(
    browser: Browser, server: str, stub: Stub, photo: Path
) -> None:
    stub.cards = None
    tab = browser.open(server)
    tab.wait_shown("#facts")
    tab.drop(photo)
    tab.wait_shown("#result")
    assert classes(tab)[0][0] == "class 0"
    assert stub.asked == ["colours"]
    tab.close()


@pytest.mark.parametrize("reason", [None, "pillow is not installed"])
def test_a_model_that_takes_no_images_says_why(
    browser: Browser, server: str, stub: Stub, reason: str | None
) -> None:
    stub.inputs = ("image",)
    if reason is not None:
        stub.cards = [{**CARDS[0], "tensors_only": reason}]
    tab = browser.open(server)
    tab.wait_shown("#card-problem")
    why = reason or "its deployment has no preprocessing"
    assert tab.text("#card-problem") == f"This model takes tensors, not images: {why}."
    tab.close()


def test_the_newest_picture_wins(tab: Tab, stub: Stub, photo: Path, tmp_path: Path) -> None:
    stub.release = threading.Event()
    tab.drop(photo)
    tab.wait_shown("#working")
    newer = picture(tmp_path / "newer.png", (0, 0, 250))
    tab.drop(newer)
    tab.wait("document.getElementById('file-name').textContent.startsWith('newer')")
    stub.release.set()
    tab.wait_shown("#result")
    assert classes(tab) == expected_classes(newer)
    assert tab.complaints() == []


def test_it_works_by_keyboard(tab: Tab, photo: Path) -> None:
    tab.pick("#file", [photo])
    tab.wait_shown("#result")
    reached = []
    for _ in range(12):
        tab.press("Tab")
        reached.append(tab.eval("document.activeElement.id"))
    order = ["models", "file", "more", "again", "repeat", "tab-curl", "copy", "snippet"]
    assert [name for name in reached if name][: len(order)] == order
    tab.eval("document.getElementById('tab-curl').focus()")
    tab.press("ArrowRight")
    assert tab.eval("document.activeElement.id") == "tab-python"
    assert tab.text("#code").startswith("import json")
    assert tab.eval("document.activeElement.getAttribute('aria-selected')") == "true"


def test_a_screen_reader_finds_names_for_all_controls(tab: Tab, photo: Path) -> None:
    tab.pick("#file", [photo])
    tab.wait_shown("#result")
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    seen = [node for node in nodes if not node.get("ignored")]
    roles = {node["role"]["value"] for node in seen}
    assert {"heading", "button", "tab", "tablist", "image", "list", "status", "main"} <= roles
    controls = {"button", "tab", "combobox", "textbox", "image", "region", "tabpanel"}
    for node in seen:
        if node["role"]["value"] in controls:
            assert node["name"]["value"], node


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_everything_fits_and_can_be_read(
    browser: Browser, server: str, photo: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    tab = browser.open(server, width=width, dark=dark)
    tab.wait_shown("#facts")
    tab.pick("#file", [photo])
    tab.wait_shown("#result")
    assert tab.eval("document.documentElement.scrollWidth") <= width
    assert tab.eval(CONTRAST) == []
    if width < 600:
        small = (
            "[...document.querySelectorAll('button, select, .button')].filter(e => e.offsetParent"
            " && e.getBoundingClientRect().height < 44).map(e => e.id)"
        )
        assert tab.eval(small) == [], "too small for a finger"
    folder = os.environ.get("PARNET_SCREENSHOTS")
    shot = Path(folder or tmp_path) / f"page-{width}-{'dark' if dark else 'light'}.png"
    tab.screenshot(shot)
    with Image.open(io.BytesIO(shot.read_bytes())) as image:
        assert image.width == width * (2 if width < 600 else 1)
        brightness = np.asarray(image.convert("L"), float).mean()
    assert brightness < 90 if dark else brightness > 165
    tab.close()


CONTRAST = """
(() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || !element.offsetParent || element.closest('.unseen')) continue;
    const [a, b] = [channels(getComputedStyle(element).color), behind(element)].map(light);
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) low.push([element.id || element.className, element.innerText, ratio]);
  }
  return low;
})()
"""
"""Texts whose contrast is below what WCAG asks for (4.5 to 1)."""


@pytest.mark.parametrize("token", [None, "a b$c"])
@pytest.mark.parametrize("language", ["curl", "python"])
def test_the_snippets_do_what_the_page_did(
    browser: Browser, server: str, stub: Stub, tmp_path: Path, language: str, token: str | None
) -> None:
    if language == "curl" and shutil.which("curl") is None:
        pytest.skip("needs curl")
    photo = picture(tmp_path / 'it\'s a 100% "photo".png', (10, 240, 90))
    stub.token = token
    tab = browser.open(server)
    if token is not None:
        tab.wait_shown("#token-form")
        tab.type(token)
        tab.press("Enter", "\r")
    tab.wait_shown("#facts")
    tab.pick("#file", [photo])
    tab.wait_shown("#result")
    tab.click(f"#tab-{language}")
    code = tab.eval("document.getElementById('code').textContent")
    command = ["sh", "-c", code] if language == "curl" else [sys.executable, "-c", code]
    environment = {**os.environ, "TOKEN": token or ""}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, check=True, timeout=60
    )
    assert done.stderr == b""
    logits = logits_of(photo.read_bytes())
    best = np.argsort(-logits)[:5]
    found = json.loads(done.stdout.replace(b"'", b'"'))
    if language == "curl":
        found = found["outputs"][0]["data"]
    assert found == [f"{logits[k]:.6f}:{k}:{LABELS[k]}" for k in best]
    tab.close()
