"""``InferenceService`` on real deployments of small networks."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from parnet_deploy import __version__
from parnet_deploy.errors import CheckFailedError, DeviceLostError, ExecutionError, SpecError
from parnet_deploy.preprocess import load_image
from parnet_deploy.serve.model import served_model
from parnet_deploy.serve.model.options import ModelOptions
from parnet_deploy.serve.protocol.refusal import DRAINING_RETRY_S, RefusedError
from parnet_deploy.serve.protocol.request import WantedOutput
from parnet_deploy.serve.service.inference import InferenceService
from parnet_deploy.serve.service.options import ServiceOptions
from tests.runtime.runtime_toys import images, reference
from tests.serve.scheduling.scheduling_toys import StillClock
from tests.serve.service_toys import (
    LABELS,
    PREPROCESSING,
    SPEC,
    Opener,
    arrived,
    ask,
    encoded_input,
    image_input,
    picture,
    publish,
    run,
)

X = images(SPEC, 2)
EXPECTED = reference(SPEC, X)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("engines") / "toy")


def serve(toy, options=None, **more) -> InferenceService:
    return InferenceService([ModelOptions(path=toy)], options, **more)


def is_close(got, expected) -> bool:
    return np.allclose(got, expected, rtol=1e-5, atol=1e-6)


async def refusal(work) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        await work
    return caught.value


def stats(service, name="") -> dict:
    (found,) = service.statistics(name)["model_stats"]
    return found


class TestInfer:
    def test_a_tensor_is_answered_with_its_logits(self, toy):
        async def main():
            async with serve(toy) as service:
                return await service.infer(ask(image_input(X), id="7"), arrived())

        response = run(main())
        assert (response.model, response.version, response.id) == ("toy", "1", "7")
        (output,) = response.outputs
        assert (output.name, output.datatype, output.shape) == ("logits", "FP32", (2, 4))
        assert is_close(output.data, EXPECTED)
        assert response.timings.batch == 2
        assert response.timings.infer_s > 0
        assert response.timings.prepare_s == 0

    def test_encoded_images_are_prepared_and_classified(self, toy):
        contents = [picture(1), picture(2, kind="JPEG")]

        async def main():
            async with serve(toy) as service:
                wanted = (WantedOutput(name="logits", classification=2),)
                request = ask(encoded_input(*contents), outputs=wanted, version="1")
                return await service.infer(request, arrived(wire="grpc"))

        response = run(main())
        assert response.timings.prepare_s > 0
        (output,) = response.outputs
        assert (output.datatype, output.shape) == ("BYTES", (2, 2))
        x = np.stack([load_image(content, PREPROCESSING) for content in contents])
        for logits, texts in zip(
            reference(SPEC, x), (output.data[:2], output.data[2:]), strict=True
        ):
            order = np.argsort(-logits)[:2]
            for k, text in zip(order, texts, strict=True):
                value, index, label = text.decode().split(":")
                assert (int(index), label) == (k, LABELS[k])
                assert float(value) == pytest.approx(float(logits[k]), abs=2e-5)

    def test_classes_of_many_images_are_those_of_each(self, tmp_path):
        path = publish(tmp_path / "toy", max_batch=8)
        many = images(SPEC, 8)

        async def main():
            async with serve(path) as service:
                wanted = (WantedOutput(name="logits", classification=1),)
                response = await service.infer(ask(image_input(many), outputs=wanted), arrived())
                return response.outputs[0].data

        best = [int(text.split(b":")[1]) for text in run(main())]
        assert best == reference(SPEC, many).argmax(1).tolist()

    def test_concurrent_requests_get_their_own_answers(self, toy):
        each = [images(SPEC, 1, seed) for seed in range(30)]

        async def main():
            async with serve(toy) as service:
                asked = (service.infer(ask(image_input(x)), arrived()) for x in each)
                answers = await asyncio.gather(*asked)
                return answers, stats(service)

        answers, found = run(main())
        for x, response in zip(each, answers, strict=True):
            assert is_close(response.outputs[0].data, reference(SPEC, x))
        assert found["inference_count"] == 30
        assert found["execution_count"] == sum(
            b["compute_infer"]["count"] for b in found["batch_stats"]
        )
        assert max(b["batch_size"] for b in found["batch_stats"]) == 4  # they were batched

    def test_overload_is_answered_whole_and_refused_at_once(self, toy):
        async def main():
            opener = Opener()
            async with serve(toy, ServiceOptions(max_queue=64), opener=opener) as service:
                opener.opened[0].hold()
                x = image_input(images(SPEC))
                tasks = [
                    asyncio.ensure_future(service.infer(ask(x), arrived())) for _ in range(200)
                ]
                for _ in range(3):
                    await asyncio.sleep(0)
                refused = [task for task in tasks if task.done()]  # the engine has not moved yet
                opener.opened[0].let()
                assert len(refused) == 200 - 64 - 1
                for task in tasks:
                    if task in refused:
                        error = await refusal(task)
                        assert error.kind == "busy"
                        assert error.retry_after_s > 0
                    else:
                        assert is_close((await task).outputs[0].data, EXPECTED[:1])
                assert service.metrics.render()[0].count(b'reason="busy"') == 1

        run(main())

    def test_an_unaligned_view_of_a_body(self, toy):
        body = memoryview(b"{}!" + X.tobytes())
        view = np.frombuffer(body, np.float32, X.size, 3).reshape(X.shape)

        async def main():
            async with serve(toy) as service:
                return await service.infer(ask(image_input(view)), arrived())

        assert is_close(run(main()).outputs[0].data, EXPECTED)

    @pytest.mark.parametrize(
        ("request_", "kind"),
        [
            (ask(image_input(X), model="other"), "not-found"),
            (ask(image_input(X), version="3"), "not-found"),
            (ask(), "invalid"),
            (ask(image_input(X), outputs=(WantedOutput(name="x"),)), "invalid"),
            (ask(encoded_input(b"no image")), "invalid"),
        ],
    )
    def test_what_is_refused_is_counted(self, toy, request_, kind):
        async def main():
            async with serve(toy) as service:
                error = await refusal(service.infer(request_, arrived()))
                return error, service.metrics.render()[0].decode(), stats(service)

        error, page, found = run(main())
        assert error.kind == kind
        known = request_.model == "toy"
        name = "toy" if known else ""
        line = f'parnet_serve_refusals_total{{model="{name}",reason="{kind}",wire="rest"}} 1.0'
        assert line in page
        assert found["inference_stats"]["fail"]["count"] == known

    def test_a_failing_engine_is_a_failure_of_the_server(self, toy):
        async def main():
            opener = Opener()
            async with serve(toy, opener=opener) as service:
                opener.opened[0].error = ExecutionError("engine: odd")
                error = await refusal(service.infer(ask(image_input(X)), arrived()))
                assert error.kind == "failed"
                assert service.is_ready()
                opener.opened[0].error = None
                await service.infer(ask(image_input(X)), arrived())

        run(main())

    def test_a_lost_device_makes_it_unready(self, toy):
        async def main():
            opener = Opener()
            async with serve(toy, opener=opener) as service:
                opener.opened[0].error = DeviceLostError("device 0: lost", 0)
                error = await refusal(service.infer(ask(image_input(X)), arrived()))
                assert error.kind == "not-ready"
                assert service.is_live()
                assert not service.is_ready()
                assert not service.is_model_ready("toy")
                (index,) = service.repository_index()
                assert (index["state"], index["reason"]) == ("UNAVAILABLE", "its device is lost")
                assert service.repository_index(ready_only=True) == []
                await service.swap("toy")  # opening it again is the way out
                assert service.is_ready()
                await service.infer(ask(image_input(X)), arrived())

        run(main())


class TestDeadline:
    @pytest.mark.parametrize(
        ("request_", "left_s", "limit_s"),
        [
            (ask(image_input(X)), None, 10.0),
            (ask(image_input(X), timeout_us=2_000_000), None, 2.0),
            (ask(image_input(X), timeout_us=60_000_000), None, 10.0),
            (ask(image_input(X), timeout_us=3_000_000), 2.5, 2.5),
            (ask(image_input(X)), 99.0, 10.0),
        ],
    )
    def test_the_shortest_counts_from_the_arrival(self, toy, request_, left_s, limit_s):
        async def main():
            clock, opener = StillClock(), Opener()
            async with serve(toy, clock=clock, opener=opener) as service:
                held = opener.opened[0]
                held.hold()
                arrival = arrived(left_s, at_s=clock.now())
                clock.advance(1.0)  # it took so long to come in
                task = asyncio.ensure_future(service.infer(request_, arrival))
                await asyncio.sleep(0)
                clock.advance(limit_s - 1.0 - 0.01)
                await asyncio.sleep(0)
                assert not task.done()
                clock.advance(0.02)
                assert (await refusal(task)).kind == "late"
                held.let()

        run(main())

    def test_a_deadline_that_has_passed_is_refused_at_once(self, toy):
        async def main():
            async with serve(toy) as service:
                for left_s in (0.0, -1.0):
                    work = service.infer(ask(image_input(X)), arrived(left_s))
                    assert (await refusal(work)).kind == "late"

        run(main())


class TestLife:
    def test_it_is_ready_only_when_the_canary_has_passed(self, toy):
        async def main():
            opener = Opener()
            opener.gate.clear()
            service = serve(toy, opener=opener)
            start = asyncio.ensure_future(service.start())
            await asyncio.sleep(0)
            assert service.is_live()
            assert not service.is_ready()
            assert not service.is_model_ready("toy")
            error = await refusal(service.infer(ask(image_input(X)), arrived()))
            assert error.kind == "not-ready"
            opener.gate.set()
            await start
            assert service.is_ready()
            assert service.is_model_ready("toy", "1")
            await service.close()
            assert opener.opened[0].closed

        run(main())

    def test_a_failing_canary_keeps_it_from_starting_and_leaves_nothing_open(self, toy, tmp_path):
        bad = publish(tmp_path / "bad", canary_off_by=0.5)

        async def main():
            opener = Opener()
            models = [ModelOptions(path=toy), ModelOptions(path=bad)]
            service = InferenceService(models, opener=opener)
            with pytest.raises(CheckFailedError):
                await service.start()
            assert [held.closed for held in opener.opened] == [True]
            assert not service.is_ready()
            await service.close()

        run(main())

    def test_two_models(self, toy, tmp_path):
        async def main():
            models = [ModelOptions(path=toy), ModelOptions(path=toy, name="again")]
            async with InferenceService(models) as service:
                assert service.models == ("toy", "again")
                for name in service.models:
                    response = await service.infer(ask(image_input(X), model=name), arrived())
                    assert response.model == name
                names = [one["name"] for one in service.statistics()["model_stats"]]
                assert names == ["toy", "again"]
                assert stats(service, "again")["inference_count"] == 2

        run(main())

    @pytest.mark.parametrize("count", [0, 2])
    def test_no_model_and_twice_the_same_are_refused(self, toy, count):
        async def main():
            service = InferenceService([ModelOptions(path=toy)] * count)
            with pytest.raises(SpecError, match=r"expected (one|different)"):
                await service.start()

        run(main())

    def test_draining_finishes_what_was_accepted_and_takes_no_more(self, toy):
        async def main():
            opener = Opener()
            service = serve(toy, opener=opener)
            await service.start()
            held = opener.opened[0]
            held.hold()
            tasks = [
                asyncio.ensure_future(service.infer(ask(image_input(X)), arrived()))
                for _ in range(4)
            ]
            await asyncio.sleep(0)
            closing = asyncio.ensure_future(service.close(drain_s=60))
            await asyncio.sleep(0)
            assert not service.is_ready()
            assert service.is_live()
            error = await refusal(service.infer(ask(image_input(X)), arrived()))
            assert (error.kind, error.retry_after_s) == ("draining", DRAINING_RETRY_S)
            assert not held.closed
            held.let()
            for task in tasks:
                assert is_close((await task).outputs[0].data, EXPECTED)
            await closing
            assert held.closed
            await service.close()  # idempotent

        run(main())

    def test_after_the_cap_the_rest_is_refused(self, toy):
        async def main():
            clock, opener = StillClock(), Opener()
            service = serve(toy, clock=clock, opener=opener)
            await service.start()
            held = opener.opened[0]
            held.hold()
            arrival = arrived(at_s=clock.now())
            tasks = [
                asyncio.ensure_future(service.infer(ask(image_input(X)), arrival)) for _ in range(3)
            ]
            await asyncio.sleep(0)
            closing = asyncio.ensure_future(service.close(drain_s=2.0))
            for _ in range(5):
                await asyncio.sleep(0)
            clock.advance(1.9)
            await asyncio.sleep(0)
            assert not any(task.done() for task in tasks)
            clock.advance(0.2)
            for task in tasks:
                error = await refusal(task)
                assert (error.kind, error.retry_after_s) == ("draining", DRAINING_RETRY_S)
            held.let()
            await closing
            assert held.closed

        run(main())

    def test_draining_does_not_wait_for_companions(self, toy):
        async def main():
            clock = StillClock()  # in which the delay never ends
            options = ServiceOptions(max_delay_ms=5000)
            async with serve(toy, options, clock=clock) as service:
                request = service.infer(ask(image_input(X)), arrived(at_s=clock.now()))
                task = asyncio.ensure_future(request)
                await asyncio.sleep(0)
                assert not task.done()
                service.begin_drain()
                assert is_close((await task).outputs[0].data, EXPECTED)

        run(main())


class TestDocuments:
    @pytest.fixture
    def asked(self, toy):
        async def main():
            options = ServiceOptions(max_queue=9, max_delay_ms=0.25, deadline_s=2.0)
            async with serve(toy, options) as service:
                await service.infer(ask(image_input(X)), arrived())
                return {
                    "server": service.server_metadata(),
                    "metadata": service.model_metadata("toy", "1"),
                    "config": service.model_config("toy"),
                    "index": service.repository_index(ready_only=True),
                    "statistics": service.statistics("toy", "1"),
                    "card": service.model_card("toy"),
                    "people": service.describe(),
                }

        return run(main())

    def test_the_server(self, asked):
        assert asked["server"]["version"] == __version__
        assert "classification" in asked["server"]["extensions"]
        assert asked["people"]["ready"] is True
        assert asked["people"]["models"]["toy"] == asked["card"]

    def test_the_model(self, asked):
        assert asked["metadata"]["name"] == "toy"
        policy = asked["config"]["dynamic_batching"]
        assert policy["max_queue_delay_microseconds"] == 250
        assert policy["default_queue_policy"]["default_timeout_microseconds"] == 2_000_000
        assert policy["default_queue_policy"]["max_queue_size"] == 9
        digest = asked["config"]["parameters"]["digest"]["string_value"]
        assert digest == asked["card"]["digest"]
        assert asked["index"] == [{"name": "toy", "version": "1", "state": "READY", "reason": ""}]

    def test_the_statistics_are_a_message_of_the_protocol(self, asked):
        from google.protobuf.json_format import ParseDict

        from parnet_deploy.serve.protocol import messages

        parsed = ParseDict(asked["statistics"], messages.ModelStatisticsResponse())
        (found,) = parsed.model_stats
        assert (found.inference_count, found.execution_count) == (2, 1)
        assert found.inference_stats.success.count == 1
        total, infer = found.inference_stats.success.ns, found.inference_stats.compute_infer.ns
        assert 0 < infer < total
        assert [batch.batch_size for batch in found.batch_stats] == [2]

    @pytest.mark.parametrize(
        "what", ["model_metadata", "model_config", "is_model_ready", "statistics"]
    )
    def test_what_is_not_there_is_not_found(self, toy, what):
        async def main():
            async with serve(toy) as service:
                for given in (("other",), ("toy", "2")):
                    with pytest.raises(RefusedError, match="expected") as caught:
                        getattr(service, what)(*given)
                    assert caught.value.kind == "not-found"

        run(main())


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_queue": -1},
        {"max_delay_ms": float("nan")},
        {"deadline_s": 0},
        {"decoders": 0},
        {"max_image_bytes": 0},
        {"max_image_pixels": 0},
    ],
)
def test_options_that_cannot_be_are_refused(wrong):
    with pytest.raises(SpecError, match=rf"^{next(iter(wrong))}: got .*, expected .* to "):
        ServiceOptions(**wrong)


def test_a_model_that_takes_no_images_though_it_could_is_warned_of(toy, monkeypatch, caplog):
    monkeypatch.setattr(served_model.importlib.util, "find_spec", lambda name: None)

    async def main():
        async with serve(toy) as service:
            return service.warnings()

    (warning,) = run(main())
    assert "pillow is not installed" in warning
    assert [one.getMessage() for one in caplog.records if one.levelname == "WARNING"] == [warning]


def test_a_delay_as_long_as_the_deadline_is_refused():
    with pytest.raises(SpecError, match=r"^max_delay_ms: got 500, expected less .*, 500 ms\."):
        ServiceOptions(max_delay_ms=500.0, deadline_s=0.5)
