"""Frames of a real video file and of a folder, through the loop."""

from __future__ import annotations

import re

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

from parnet_deploy import Runtime  # noqa: E402
from parnet_deploy.deployment import Deployment  # noqa: E402
from parnet_deploy.preprocess import Preprocessing, prepare_pixels, read_labels  # noqa: E402
from tests.digits import IMAGES  # noqa: E402
from tests.examples.load import EXAMPLES, load_example  # noqa: E402

loop = load_example("opencv_loop.py")

LABELS = read_labels(EXAMPLES / "digits" / "labels.txt")
LINE = re.compile(r"(\d+): (\S+) \(\d+%\)  prepare \d+\.\d\d ms, network \d+\.\d\d ms")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digits 0 to 9, once each, at 64x64."""
    path = str(tmp_path_factory.mktemp("video") / "digits.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64))
    assert writer.isOpened()
    for digit in range(10):
        frame = cv2.imread(str(sorted((IMAGES / str(digit)).iterdir())[0]), cv2.IMREAD_COLOR)
        writer.write(cv2.resize(frame, (64, 64), interpolation=cv2.INTER_LINEAR))
    writer.release()
    return path


def answers(capsys) -> list[str]:
    """The labels that were printed, in order; every line has the form that it should."""
    found = [LINE.fullmatch(line) for line in capsys.readouterr().out.splitlines()]
    assert [int(match[1]) for match in found] == list(range(len(found)))
    return [match[2] for match in found]


def test_a_video_is_classified_frame_by_frame(digits, video, capsys) -> None:
    assert loop.main([str(digits), video]) == 0
    said = answers(capsys)
    preprocessing = Preprocessing.from_json(Deployment.open(digits).preprocessing)
    with Runtime.open(digits) as runtime:
        images = [prepare_pixels(bgr[..., ::-1], preprocessing) for bgr in loop.read_frames(video)]
        wanted = [LABELS[int(runtime(image[None]).argmax())] for image in images]
    assert len(said) == 10
    assert said == wanted
    assert sum(a == b for a, b in zip(said, LABELS, strict=True)) >= 9


def test_it_stops_after_so_many_frames(digits, video, capsys) -> None:
    assert loop.main([str(digits), video, "--frames", "3"]) == 0
    assert len(answers(capsys)) == 3


def test_a_folder_stands_in(digits, capsys) -> None:
    assert loop.main([str(digits), str(IMAGES / "4"), "--frames", "5"]) == 0
    assert answers(capsys) == [LABELS[4]] * 5


def test_colours_are_not_swapped(digits, tmp_path, monkeypatch) -> None:
    frame = np.zeros((8, 8, 3), np.uint8)
    frame[..., 2] = 255  # red, in BGR
    cv2.imwrite(str(tmp_path / "red.png"), frame)
    seen = []
    monkeypatch.setattr(loop, "prepare_pixels", lambda rgb, how: seen.append(rgb) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loop.main([str(digits), str(tmp_path)])
    assert (seen[0] == [255, 0, 0]).all()


def test_a_video_that_is_not_there_is_named(digits, capsys) -> None:
    assert loop.main([str(digits), "/nowhere.avi"]) == 1
    assert "error: video /nowhere.avi: got nothing that OpenCV can open" in capsys.readouterr().err
