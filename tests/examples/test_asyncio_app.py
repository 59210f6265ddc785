"""The asyncio program: answers, deadlines, cancellation, bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from itertools import chain, cycle

import numpy as np
import pytest

from parnet_deploy import Runtime
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import InputError
from parnet_deploy.preprocess import Preprocessing, find_images, load_image, read_labels
from tests.digits import IMAGES
from tests.examples.load import EXAMPLES, load_example

app = load_example("asyncio_app.py")

LABELS = read_labels(EXAMPLES / "digits" / "labels.txt")
IMAGE = np.zeros((3, 32, 32), np.float32)


class Stuck:
    """A runtime whose futures are never done."""

    def __init__(self) -> None:
        self.futures: list[Future[np.ndarray]] = []

    def submit(self, x: np.ndarray) -> Future[np.ndarray]:
        self.futures.append(Future())
        return self.futures[-1]


def finish(work: Coroutine[object, object, object]) -> None:
    """Run it; what hangs fails, and is not taken for something that was too late."""

    async def watched() -> None:
        task = asyncio.ensure_future(work)
        done, _ = await asyncio.wait([task], timeout=60)
        assert done, "it hangs"
        await task

    asyncio.run(watched())


@pytest.fixture(scope="module")
def preprocessing(digits) -> Preprocessing:
    return Preprocessing.from_json(Deployment.open(digits).preprocessing)


@pytest.fixture(scope="module")
def paths():
    return find_images([IMAGES / "2", IMAGES / "5"])[:40]


def test_every_image_gets_the_answer_that_a_call_gives(digits, preprocessing, paths) -> None:
    found, tally = {}, app.Tally()
    with Runtime.open(digits, slots=2) as runtime:
        asyncio.run(
            app.answer_all(
                runtime, paths, preprocessing, tally, deadline_s=30, on_answer=found.__setitem__
            )
        )
        images = {path: load_image(path, preprocessing) for path in paths}
        wanted = {path: int(runtime(image[None]).argmax()) for path, image in images.items()}
    assert found == wanted
    assert tally == app.Tally(answered=len(paths))


def test_what_comes_too_late_is_counted_and_does_not_stop_the_rest(
    digits, preprocessing, paths
) -> None:
    tally = app.Tally()
    with Runtime.open(digits) as runtime:
        asyncio.run(app.answer_all(runtime, paths, preprocessing, tally, deadline_s=0))
    assert tally == app.Tally(late=len(paths))


def test_a_deadline_drops_a_call_that_waits() -> None:
    stuck = Stuck()
    with pytest.raises(asyncio.TimeoutError):
        finish(app.answer(stuck, IMAGE, 0))
    assert [future.cancelled() for future in stuck.futures] == [True]


def test_no_more_are_in_flight_than_said_and_cancelling_drops_them(preprocessing, paths) -> None:
    stuck = Stuck()

    async def cancel_when_full() -> None:
        before = asyncio.all_tasks()
        task = asyncio.create_task(
            app.answer_all(
                stuck, cycle(paths), preprocessing, app.Tally(), in_flight=3, deadline_s=60
            )
        )
        while len(stuck.futures) < 3:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == before

    finish(cancel_when_full())
    assert [future.cancelled() for future in stuck.futures] == [True] * 3


def test_cancelling_real_work_keeps_what_was_answered(digits, preprocessing, paths) -> None:
    tally = app.Tally()

    async def stop_after_five(runtime: Runtime) -> None:
        def stop(path, label) -> None:
            if tally.answered == 5:
                task.cancel()

        task = asyncio.create_task(
            app.answer_all(
                runtime, cycle(paths), preprocessing, tally, deadline_s=60, on_answer=stop
            )
        )
        await asyncio.wait([task])
        assert task.cancelled()

    with Runtime.open(digits) as runtime:
        asyncio.run(stop_after_five(runtime))
        assert runtime(IMAGE[None]).shape == (1, 10)  # it is none the worse for it
    assert 5 <= tally.answered <= 8


def test_a_bad_image_ends_all_workers(digits, preprocessing, paths, tmp_path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    endless = chain(paths[:5], [bad], cycle(paths))
    with Runtime.open(digits) as runtime, pytest.raises(InputError, match=r"bad\.png"):
        finish(app.answer_all(runtime, endless, preprocessing, app.Tally(), deadline_s=60))


def test_the_command(digits, capsys) -> None:
    folder = str(IMAGES / "6")
    assert app.main([str(digits), folder, "--deadline-ms", "30000", "--in-flight", "2"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == f"{len(lines)} answered, 0 too late"
    right = sum(line.endswith(f": {LABELS[6]}") for line in lines)
    assert right >= len(lines) - 2
    assert app.main(["/nowhere", folder]) == 1
    assert "error: deployment /nowhere" in capsys.readouterr().err
