"""The page against our own server: the answer a person sees is the network's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parnet_deploy import Runtime
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.classify import softmax
from parnet_deploy.deployment import Deployment
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import FuseOptions, fuse_to_deployment
from parnet_deploy.preprocess import Preprocessing, load_image
from tests.browser import Browser
from tests.conftest import find_browser
from tests.serve.load.processes import serving

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "digits"
    checkpoint = ROOT / "examples/digits/digits.pth.tar"
    fuse_to_deployment(checkpoint, path, FuseOptions(labels=LABELS))
    export_to_deployment(path)
    build_to_deployment(path, BuildOptions(backend="onnxruntime", placement="one", threads=1))
    return path


def test_a_digit_is_recognised(deployment: Path, tmp_path: Path) -> None:
    pictures = [next((ROOT / f"calibration/digits/eval/{n}").glob("*.png")) for n in (3, 7)]
    found = Deployment.open(deployment)
    assert found.preprocessing is not None
    how = Preprocessing.from_json(found.preprocessing)
    browser_path = find_browser()
    assert browser_path is not None
    with (
        serving([deployment], tmp_path) as running,
        Browser(browser_path, tmp_path / "profile") as browser,
        Runtime.open(deployment) as runtime,
    ):
        tab = browser.open(f"http://{running.host}:{running.port}/")
        tab.wait_shown("#checks")
        for picture in pictures:
            tab.drop(picture)
            name = picture.name
            tab.wait(f"document.getElementById('file-name').textContent.startsWith('{name}')")
            tab.wait_shown("#result")
            shares = softmax(runtime(load_image(picture, how)[None]))[0]
            best = int(np.argmax(shares))
            assert LABELS[best] == LABELS[int(picture.parent.name)]
            assert tab.text("#classes .class") == LABELS[best]
            shown = tab.text("#classes .share")
            assert shown in (f"{100 * shares[best]:.1f} %", "> 99.9 %")
            parts = tab.text("#parts")
            for part in ("Prepare image", "Wait for engine", "Engine", "Receive and answer"):
                assert part in parts
        card = tab.text("#card")
        assert found.digest[:16] in card
        assert "onnxruntime" in card
        assert "passed: " in tab.text("#checks")
        assert "FAILED" not in card
        note = tmp_path / "note.txt"
        note.write_text("words")
        tab.drop(note)
        tab.wait_shown("#problem")
        assert "image" in tab.text("#problem-text")
        assert [line for line in tab.complaints() if "400 (Bad Request)" not in line] == []
        tab.drop(pictures[0])
        tab.wait_shown("#result")
        tab.screenshot(tmp_path / "real.png")
        tab.close()
