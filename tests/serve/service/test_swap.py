"""Another deployment takes over while requests are answered."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from parnet_deploy.errors import CheckFailedError
from parnet_deploy.serve.model.options import ModelOptions
from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.service.inference import InferenceService
from parnet_deploy.serve.service.options import ServiceOptions
from tests.runtime.runtime_toys import SPECS, fixed_size, images, reference
from tests.serve.service_toys import SPEC, Opener, arrived, ask, image_input, publish, run

NEW = SPECS[2]  # other classes, other sides, another number of streams
PATIENT = ServiceOptions(deadline_s=600)
OLD_X, NEW_X = images(SPEC), images(NEW)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    old = publish(folder / "toy")
    new = publish(folder / "new", spec=NEW, size=fixed_size(NEW), labels=None, preprocessing=None)
    bad = publish(folder / "bad", canary_off_by=0.5)
    return ModelOptions(path=old), ModelOptions(path=new), ModelOptions(path=bad)


def is_from(response, spec, x) -> bool:
    expected = reference(spec, x)
    got = response.outputs[0].data
    return got.shape == expected.shape and np.allclose(got, expected, rtol=1e-5, atol=1e-6)


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_queued_requests_are_the_old_ones_and_later_ones_the_new_ones(paths):
    old, new, _ = paths

    async def main():
        opener = Opener()
        async with InferenceService([old], opener=opener) as service:
            first = opener.opened[0]
            first.hold()
            queued = [
                asyncio.ensure_future(service.infer(ask(image_input(OLD_X)), arrived()))
                for _ in range(6)
            ]
            await turn()
            before = service.model_metadata("toy")
            opener.gate.clear()
            swapping = asyncio.ensure_future(service.swap("toy", new))
            await turn()
            assert service.model_metadata("toy") == before  # it answers until the other is proved
            opener.gate.set()
            report = await swapping
            assert report["model"] == "toy"
            assert report["old"]["digest"] != report["new"]["digest"]
            assert report["old"]["memory_bytes"] > 0 < report["new"]["memory_bytes"]
            assert service.model_metadata("toy")["outputs"][0]["shape"] == [-1, 3]
            assert service.model_card("toy")["digest"] == report["new"]["digest"]
            assert report["new"]["digest"] in service.metrics.render()[0].decode()
            response = await service.infer(ask(image_input(NEW_X)), arrived())
            assert is_from(response, NEW, NEW_X)
            assert not first.closed
            page = service.metrics.render()[0].decode()
            assert 'parnet_serve_in_flight_requests{model="toy"} 6.0' in page  # the old one's too
            first.let()
            for task in queued:
                assert is_from(await task, SPEC, OLD_X)
        assert [held.closed for held in opener.opened] == [True, True]

    run(main())


def test_the_old_one_is_closed_when_it_has_answered(paths):
    old, new, _ = paths

    async def main():
        opener = Opener()
        async with InferenceService([old], opener=opener) as service:
            await service.swap("toy", new)
            host = service._hosts["toy"]
            await asyncio.gather(*host._retiring)
            assert [held.closed for held in opener.opened] == [True, False]
            await turn()
            assert not host._retiring
            assert not host._older

    run(main())


def test_a_failing_new_one_changes_nothing(paths):
    old, _, bad = paths

    async def main():
        opener = Opener()
        async with InferenceService([old], opener=opener) as service:
            before = service.model_card("toy")
            with pytest.raises(CheckFailedError, match="canary"):
                await service.swap("toy", bad)
            assert service.model_card("toy") is before
            assert service.is_ready()
            assert is_from(await service.infer(ask(image_input(OLD_X)), arrived()), SPEC, OLD_X)
            page = service.metrics.render()[0].decode()
            assert 'parnet_serve_swaps_total{model="toy",outcome="failed"} 1.0' in page

    run(main())


def test_under_load_nothing_is_lost_and_nothing_mixed(paths, tmp_path):
    """The same deployment again and again while clients ask; every single answer is right."""
    old, _, _ = paths

    async def main():
        opener = Opener()
        answered = 0
        over = asyncio.Event()
        async with InferenceService([old], PATIENT, opener=opener) as service:

            async def client(seed: int) -> None:
                nonlocal answered
                while not over.is_set():
                    x = images(SPEC, 1 + seed % 3, seed)
                    response = await service.infer(ask(image_input(x)), arrived())
                    assert is_from(response, SPEC, x)
                    answered += 1
                    seed += 7

            clients = [asyncio.ensure_future(client(seed)) for seed in range(4)]
            for _ in range(4):
                await service.swap("toy")
            over.set()
            await asyncio.gather(*clients)
            (found,) = service.statistics("toy")["model_stats"]
            assert found["inference_stats"]["success"]["count"] == answered > 0
            assert found["inference_stats"]["fail"]["count"] == 0
        assert len(opener.opened) == 5
        assert all(held.closed for held in opener.opened)

    run(main())


def test_swaps_come_one_after_another(paths):
    old, new, _ = paths

    async def main():
        opener = Opener()
        async with InferenceService([old], opener=opener) as service:
            reports = await asyncio.gather(service.swap("toy", new), service.swap("toy", old))
            assert reports[0]["new"]["digest"] == reports[1]["old"]["digest"]
            assert is_from(await service.infer(ask(image_input(OLD_X)), arrived()), SPEC, OLD_X)

    run(main())


def test_a_server_that_stops_meanwhile_does_not_wait_and_leaves_nothing_open(paths):
    old, new, _ = paths

    async def main():
        opener = Opener()
        service = InferenceService([old], opener=opener)
        await service.start()
        opener.gate.clear()
        swapping = asyncio.ensure_future(service.swap("toy", new))
        await turn()
        await service.close(drain_s=60)  # though the new one is still being opened
        assert opener.opened[0].closed
        opener.gate.set()
        with pytest.raises(RefusedError) as caught:
            await swapping
        assert caught.value.kind == "draining"
        assert [held.closed for held in opener.opened] == [True, True]

    run(main())


def test_a_cancelled_swap_leaves_nothing_open(paths):
    old, new, _ = paths

    async def main():
        opener = Opener()
        async with InferenceService([old], opener=opener) as service:
            opener.gate.clear()
            swapping = asyncio.ensure_future(service.swap("toy", new))
            await turn()
            swapping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await swapping
            assert is_from(await service.infer(ask(image_input(OLD_X)), arrived()), SPEC, OLD_X)
            opener.gate.set()
            assert await asyncio.to_thread(opener.count.acquire, timeout=60)
            assert await asyncio.to_thread(opener.opened[1].done.wait, 60)
            assert not opener.opened[0].closed
            await service.swap("toy")  # and another one may follow

    run(main())
