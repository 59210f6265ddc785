"""Encoded images: prepared in threads, bounded, refused honestly."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from parnet_deploy.preprocess import load_image
from parnet_deploy.serve.clock import LoopClock
from parnet_deploy.serve.model import decoders as module
from parnet_deploy.serve.model.decoders import Decoders
from parnet_deploy.serve.protocol.refusal import DRAINING_RETRY_S, RefusedError
from tests.serve.scheduling.scheduling_toys import StillClock
from tests.serve.service_toys import PREPROCESSING, picture, run

FAR = 1e12


@contextmanager
def decoders(
    clock=None, *, threads=1, max_waiting=3, max_image_bytes=2**20, max_image_pixels=10**6
):
    found = Decoders(
        threads=threads,
        max_waiting=max_waiting,
        max_image_bytes=max_image_bytes,
        max_image_pixels=max_image_pixels,
        clock=clock or LoopClock(),
    )
    try:
        yield found
    finally:
        found.close()


async def refusal(work) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        await work
    return caught.value


@pytest.fixture
def gate(monkeypatch):
    """Decoding waits for it."""
    opened = threading.Event()
    real = module.load_image

    def wait(content, preprocessing, **more):
        assert opened.wait(60)
        return real(content, preprocessing, **more)

    monkeypatch.setattr(module, "load_image", wait)
    return opened


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_images_are_prepared_as_the_manifest_says(kind):
    contents = [picture(seed, kind=kind) for seed in range(3)]

    async def main():
        with decoders() as found:
            one = await found.decode(contents[:1], PREPROCESSING, FAR)
            return one, await found.decode(contents, PREPROCESSING, FAR)

    one, three = run(main())
    expected = np.stack([load_image(content, PREPROCESSING) for content in contents])
    assert np.array_equal(one, expected[:1])
    assert np.array_equal(three, expected)
    assert three.dtype == np.float32
    assert three.flags.c_contiguous


@pytest.mark.parametrize("damaged", [b"", b"no image", picture()[:40]])
def test_a_damaged_image_is_named_by_its_index(damaged):
    async def main():
        with decoders() as found:
            return await refusal(found.decode([picture(), damaged], PREPROCESSING, FAR))

    error = run(main())
    assert error.kind == "invalid"
    assert str(error).startswith("encoded_image[1]: image (")


def test_a_large_file_is_refused_before_it_is_decoded():
    async def main():
        with decoders(max_image_bytes=100) as found:
            return await refusal(found.decode([b"x", b"x" * 101], PREPROCESSING, FAR))

    error = run(main())
    assert error.kind == "too-large"
    assert "encoded_image[1]: got 101 bytes, expected at most 100" in str(error)


def test_no_more_wait_than_may(gate):
    async def main():
        with decoders(max_waiting=3) as found:
            content = picture()
            tasks = [
                asyncio.ensure_future(found.decode([content] * n, PREPROCESSING, FAR))
                for n in (2, 1)
            ]
            await asyncio.sleep(0)
            error = await refusal(found.decode([content], PREPROCESSING, FAR))
            assert error.kind == "busy"
            assert "queue is full: 3 of 3 images wait, no room for 1 more." in str(error)
            gate.set()
            assert [len(images) for images in await asyncio.gather(*tasks)] == [2, 1]
            assert len(await found.decode([content] * 3, PREPROCESSING, FAR)) == 3

    run(main())


def test_a_deadline_counts_while_images_are_decoded(gate):
    async def main():
        clock = StillClock()
        with decoders(clock) as found:
            late = found.decode([picture()], PREPROCESSING, clock.now() + 1.0)
            task = asyncio.ensure_future(late)
            await asyncio.sleep(0)
            clock.advance(1.1)
            assert (await refusal(task)).kind == "late"
            gate.set()
            assert len(await found.decode([picture()], PREPROCESSING, FAR)) == 1

    run(main())


@pytest.mark.parametrize("why", ["cancelled", "late"])
def test_nobody_waits_for_the_rest_of_a_request_that_has_left(gate, monkeypatch, why):
    """Neither the thread nor those behind: it stops between two images."""
    loaded, entered, real = [], threading.Event(), module.load_image

    def load(content, *given, **more):
        loaded.append(content)
        entered.set()
        return real(content, *given, **more)

    monkeypatch.setattr(module, "load_image", load)

    async def main():
        clock = StillClock()
        with decoders(clock, max_waiting=9) as found:
            gone = asyncio.ensure_future(
                found.decode([picture()] * 3, PREPROCESSING, clock.now() + 1.0)
            )
            await asyncio.sleep(0)
            await asyncio.to_thread(entered.wait, 60)
            if why == "late":
                clock.advance(1.1)
            else:
                gone.cancel()
            await asyncio.wait([gone])
            gate.set()
            await found.decode([picture(7)], PREPROCESSING, FAR)

    run(main())
    assert loaded == [picture(), picture(7)]


def test_requests_take_turns(gate, monkeypatch):
    """Whoever sends one image does not wait for all that somebody else sent."""
    loaded, real = [], module.load_image

    def load(content, *given, **more):
        loaded.append(content)
        return real(content, *given, **more)

    monkeypatch.setattr(module, "load_image", load)
    many = [picture(k) for k in range(3)]

    async def main():
        with decoders(max_waiting=9) as found:
            each = [
                asyncio.ensure_future(found.decode(content, PREPROCESSING, FAR))
                for content in (many, [picture(7)])
            ]
            await asyncio.sleep(0)
            gate.set()
            return await asyncio.gather(*each)

    three, one = run(main())
    assert loaded == [many[0], picture(7), *many[1:]]
    assert np.array_equal(three, np.stack([load_image(x, PREPROCESSING) for x in many]))
    assert np.array_equal(one[0], load_image(picture(7), PREPROCESSING))


def test_nothing_is_decoded_once_it_is_closed():
    async def main():
        with decoders() as found:
            found.close()
            return await refusal(found.decode([picture()], PREPROCESSING, FAR))

    assert run(main()).kind == "draining"


def test_who_cannot_be_in_time_is_told_so_at_once(gate, monkeypatch):
    clock = StillClock()
    real = module.load_image

    def load(*given, **more):
        found = real(*given, **more)
        clock.advance(2.0)
        return found

    monkeypatch.setattr(module, "load_image", load)

    async def main():
        with decoders(clock, max_waiting=9) as found:
            gate.set()
            await found.decode([picture()], PREPROCESSING, FAR)  # one takes 2 s
            gate.clear()
            three = asyncio.ensure_future(found.decode([picture()] * 3, PREPROCESSING, FAR))
            await asyncio.sleep(0)
            error = await refusal(found.decode([picture()], PREPROCESSING, clock.now() + 1.9))
            assert (error.kind, error.retry_after_s) == ("late", 2.0)  # after one of the three
            assert "1900.0 ms until the deadline, expected at least 2000.0 ms" in str(error)
            work = found.decode([picture()] * 5, PREPROCESSING, clock.now() + 5.9)
            assert (await refusal(work)).retry_after_s == 6.0  # after all three
            patient = found.decode([picture()], PREPROCESSING, clock.now() + 60.0)
            gate.set()
            assert len(await patient) == 1
            assert len(await three) == 3

    run(main())


def test_too_many_pixels_are_refused_and_those_allowed_are_not():
    async def main():
        with decoders(max_image_pixels=400) as found:
            assert len(await found.decode([picture(side=20)], PREPROCESSING, FAR)) == 1
            return await refusal(found.decode([picture(side=21)], PREPROCESSING, FAR))

    error = run(main())
    assert error.kind == "invalid"
    assert "got 21x21 pixels, expected at most 400 in all" in str(error)


def test_a_cancelled_request_is_not_decoded(gate, monkeypatch):
    prepared = []
    real = module.prepare_image
    monkeypatch.setattr(
        module,
        "prepare_image",
        lambda *given, **more: prepared.append(given) or real(*given, **more),
    )

    async def main():
        with decoders(max_waiting=2) as found:
            running, gone = (
                asyncio.ensure_future(found.decode([picture(k)], PREPROCESSING, FAR))
                for k in range(2)
            )
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.sleep(0)
            gate.set()
            await running
            assert len(await found.decode([picture()] * 2, PREPROCESSING, FAR)) == 2

    run(main())
    assert len(prepared) == 1 + 2


def test_what_waits_when_it_is_closed_is_refused(gate):
    async def main():
        with decoders() as found:
            running, waiting = (
                asyncio.ensure_future(found.decode([picture(k)], PREPROCESSING, FAR))
                for k in range(2)
            )
            await asyncio.sleep(0)
            found.close()
            error = await refusal(waiting)
            assert (error.kind, error.retry_after_s) == ("draining", DRAINING_RETRY_S)
            gate.set()
            assert len(await running) == 1

    run(main())
