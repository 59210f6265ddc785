"""A model in service proves itself again, and engines that hang or are wrong answer nobody."""

from __future__ import annotations

import asyncio
import logging

import numpy as np
import pytest

from parnet_deploy.errors import CheckFailedError, DeviceLostError, ExecutionError
from parnet_deploy.runtime import opened
from parnet_deploy.serve.model.options import ModelOptions
from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.server.deployments import DeploymentServer
from parnet_deploy.serve.server.options import ServerOptions
from parnet_deploy.serve.service.inference import InferenceService
from parnet_deploy.serve.service.options import ServiceOptions
from tests.chaos.faulty import HANG_S, Faults, FaultyBackend
from tests.runtime.runtime_toys import images, reference
from tests.serve.scheduling.scheduling_toys import StillClock
from tests.serve.service_toys import SPEC, Opener, arrived, ask, image_input, publish, run

X = images(SPEC)
EVERY_S = 5.0
WRONG = CheckFailedError("canary of toy: got 1.0, expected 1e-4.")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("engines") / "toy")


def proving(toy, clock, opener) -> InferenceService:
    options = ServiceOptions(prove_every_s=EVERY_S)
    return InferenceService([ModelOptions(path=toy)], options, clock=clock, opener=opener)


async def after_a_while(service, clock) -> None:
    """The next proof, done."""
    clock.advance(EVERY_S)
    await service._hosts["toy"]._proving._task


async def infer(service, clock):
    return await service.infer(ask(image_input(X)), arrived(at_s=clock.now()))


async def kind_of(work) -> str:
    with pytest.raises(RefusedError) as caught:
        await work
    return caught.value.kind


def metrics(service) -> str:
    return service.metrics.render()[0].decode()


def test_it_proves_itself_again_and_again(toy):
    async def main():
        clock, opener = StillClock(), Opener()
        async with proving(toy, clock, opener) as service:
            (held,) = opener.opened
            clock.advance(EVERY_S - 0.1)
            assert held.proved == 0
            clock.advance(0.1)
            await service._hosts["toy"]._proving._task
            for _ in range(2):
                await after_a_while(service, clock)
            assert held.proved == 3
            assert service.is_ready()
            assert 'parnet_serve_proofs_total{model="toy",outcome="passed"} 3.0' in metrics(service)
        clock.advance(10 * EVERY_S)
        assert held.proved == 3

    run(main())


def test_by_default_it_does_not(toy):
    async def main():
        clock, opener = StillClock(), Opener()
        async with InferenceService(
            [ModelOptions(path=toy)], clock=clock, opener=opener
        ) as service:
            clock.advance(1e6)
            assert service._hosts["toy"]._proving._task is None

    run(main())


def test_wrong_engines_answer_nobody_any_more(toy, caplog):
    async def main():
        clock, opener = StillClock(), Opener()
        async with proving(toy, clock, opener) as service:
            (held,) = opener.opened
            held.hold()
            asked = [asyncio.ensure_future(infer(service, clock)) for _ in range(3)]
            await asyncio.sleep(0)
            held.wrong = WRONG
            await after_a_while(service, clock)
            for task in asked:  # what runs, and what waits
                assert await kind_of(task) == "not-ready"
            held.let()
            assert await kind_of(infer(service, clock)) == "not-ready"
            assert not service.is_ready()
            assert not service.is_model_ready("toy")
            (about,) = service.repository_index()
            assert about["reason"] == "its engines give wrong logits"
            held.wrong = None
            await after_a_while(service, clock)
            assert held.proved == 1  # what was wrong once is not asked again
            assert not service.is_ready()
            page = metrics(service)
            assert 'parnet_serve_proofs_total{model="toy",outcome="failed"} 1.0' in page
            assert 'parnet_serve_ready{model="toy"} 0.0' in page

    run(main())
    assert "canary of toy: got 1.0" in caplog.text


@pytest.mark.parametrize("error", [ExecutionError("segment head: no."), ZeroDivisionError("bug")])
def test_a_proof_that_cannot_be_made_changes_nothing(toy, caplog, error):
    async def main():
        clock, opener = StillClock(), Opener()
        async with proving(toy, clock, opener) as service:
            (held,) = opener.opened
            held.wrong = error
            for _ in range(2):
                await after_a_while(service, clock)
            assert service.is_ready()
            assert 'outcome="error"} 2.0' in metrics(service)

    run(main())
    assert "model toy: got no proof" in caplog.text


def test_a_device_that_is_lost_in_a_proof_is_lost(toy):
    async def main():
        clock, opener = StillClock(), Opener()
        async with proving(toy, clock, opener) as service:
            opener.opened[0].wrong = DeviceLostError("device 0: gone.", 0)
            await after_a_while(service, clock)
            (about,) = service.repository_index()
            assert about["reason"] == "its device is lost"
            assert await kind_of(infer(service, clock)) == "not-ready"

    run(main())


def test_what_takes_over_is_proved_from_then_on(toy):
    async def main():
        clock, opener = StillClock(), Opener()
        async with proving(toy, clock, opener) as service:
            await service.swap("toy")
            await after_a_while(service, clock)
            assert [held.proved for held in opener.opened] == [0, 1]

    run(main())


def test_asked_to_reload_it_opens_again_what_cannot_answer(toy):
    async def main():
        server = DeploymentServer([ModelOptions(path=toy)], ServerOptions(port=0, grpc_port=None))
        opener = Opener()
        server.service._open = opener
        async with server:
            service = server.service
            assert await server.reload() == []
            service._hosts["toy"]._now.scheduler.give_up(WRONG)
            assert not service.is_ready()
            assert await server.reload(again=False) == []  # nobody asked, and nothing changed
            assert not service.is_ready()
            assert await server.reload() == ["toy"]
            assert service.is_ready()
            assert len(opener.opened) == 2

    run(main())


class TestHang:
    @pytest.fixture
    def faults(self, monkeypatch):
        found = Faults()
        monkeypatch.setattr(opened, "load_backend", lambda name: FaultyBackend(found))
        yield found
        found.let()

    def test_all_are_answered_and_it_is_not_ready_until_the_engine_comes_back(
        self, toy, faults, caplog
    ):
        async def main():
            models = [ModelOptions(path=toy, timeout_s=HANG_S)]
            async with InferenceService(models) as service:
                host = service._hosts["toy"]
                dog = host.model.runtime._now.host
                assert service.is_ready()
                dog._timeout_s = 0.05
                faults.hang("all")
                asked = [
                    asyncio.ensure_future(service.infer(ask(image_input(X)), arrived()))
                    for _ in range(5)
                ]
                for task in asked:
                    assert await kind_of(task) == "not-ready"
                assert not service.is_ready()
                (about,) = service.repository_index()
                assert about["reason"] == "its engines do not come back"
                faults.let()
                while host.model.is_stuck:
                    await asyncio.sleep(0)
                dog._timeout_s = HANG_S
                assert service.is_ready()
                response = await service.infer(ask(image_input(X)), arrived())
                assert np.allclose(response.outputs[0].data, reference(SPEC, X), atol=1e-5)

        with caplog.at_level(logging.ERROR, "parnet_deploy"):
            run(main())
        assert "got no answer from its engines in 0.05 s" in caplog.text

    def test_it_ends_though_its_engine_hangs(self, toy, faults, caplog):
        async def main():
            models = [ModelOptions(path=toy, timeout_s=HANG_S)]
            async with InferenceService(models) as service:
                service._hosts["toy"].model.runtime._now.host._timeout_s = 0.05
                faults.hang("all")
                assert await kind_of(service.infer(ask(image_input(X)), arrived())) == "not-ready"

        run(main())
        assert "1 of 1 slots did not come back" in caplog.text
        faults.let()
        assert faults.closed.wait(HANG_S)

    def test_what_is_not_finite_fails_its_own_request_alone(self, toy, faults):
        async def main():
            models = [ModelOptions(path=toy, check_finite=True)]
            async with InferenceService(models) as service:
                bad = X.copy()
                bad[0, 0, 0, 0] = np.nan
                asked = [
                    asyncio.ensure_future(service.infer(ask(image_input(x)), arrived()))
                    for x in (X, bad, X)
                ]
                assert await kind_of(asked[1]) == "failed"
                for task in (asked[0], asked[2]):
                    found = (await task).outputs[0].data
                    assert np.allclose(found, reference(SPEC, X), atol=1e-5)

        run(main())
