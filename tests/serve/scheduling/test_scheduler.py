"""The scheduler on a real event loop and real threads; engines and time are in the test's hands."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextlib import asynccontextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parnet_deploy.errors import (
    CheckFailedError,
    DeviceLostError,
    ExecutionError,
    InputError,
    TimedOutError,
)
from parnet_deploy.serve.clock import LoopClock
from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.scheduling import dispatcher
from parnet_deploy.serve.scheduling.dispatcher import Limits
from parnet_deploy.serve.scheduling.scheduler import Scheduler
from parnet_deploy.serve.scheduling.workers import BatchRunner
from tests.serve.scheduling.scheduling_toys import Gate, StillClock, echo, is_answer_to, picture

GONE = RefusedError("draining", "toy: it is over")


@asynccontextmanager
async def scheduler(run, clock=None, on_run=lambda images, run_s: None, **limits):
    found = Scheduler(
        model="toy",
        run=run,
        limits=Limits(**limits),
        clock=clock or LoopClock(),
        on_run=on_run,
    )
    try:
        yield found
    finally:
        found.refuse_all(GONE)
        assert await found.close(60)


def ask(found: Scheduler, images, *, level=5, deadline_s=1e12):
    return asyncio.ensure_future(found.answer(images, level=level, deadline_s=deadline_s))


async def turn() -> None:
    """Let everything that is ready on the loop run."""
    for _ in range(3):
        await asyncio.sleep(0)


async def refusal(task) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        await task
    return caught.value


def test_one_request():
    async def main():
        ran = []
        async with scheduler(echo, on_run=lambda *run: ran.append(run)) as found:
            answer = await ask(found, picture(7, n=1))
            assert is_answer_to(answer.logits, picture(7, n=1))
            assert answer.batch == 1
            assert answer.queue_s >= 0
            assert ran == [(1, answer.infer_s)]
            assert (found.waiting_images, found.running_batches) == (0, 0)

    asyncio.run(main())


REQUESTS = st.lists(
    st.fixed_dictionaries(
        {
            "size": st.sampled_from([(2, 3), (4, 4)]),
            "n": st.integers(1, 3),
            "level": st.sampled_from([1, 5, 9]),
            "fate": st.sampled_from(["well", "well", "well", "fails", "cancelled", "late"]),
            "pause": st.integers(0, 2),
        }
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(REQUESTS, st.integers(3, 6), st.integers(1, 3), st.sampled_from([0.0, 0.001]))
def test_answers_are_never_mixed(requests, max_batch, slots, max_delay_s):
    """Whatever fails, is cancelled or late: each request gets its own answer, or why not."""
    spoilt = {float(k) for k, request in enumerate(requests) if request["fate"] == "fails"}

    def run(images):
        if spoilt & set(np.floor(images[:, 0, 0, 0]).tolist()):
            raise ExecutionError("engine: spoilt")
        return echo(images)

    async def main():
        clock = LoopClock()
        limits = {"max_batch": max_batch, "slots": slots, "max_delay_s": max_delay_s}
        async with scheduler(run, clock, max_queue=100, **limits) as found:
            tasks = []
            for number, request in enumerate(requests):
                images = picture(number, request["size"], request["n"])
                deadline_s = clock.now() + (0.0005 if request["fate"] == "late" else 1e6)
                task = ask(found, images, level=request["level"], deadline_s=deadline_s)
                tasks.append((task, request, images))
                for _ in range(request["pause"]):
                    await asyncio.sleep(0)
                if request["fate"] == "cancelled":
                    task.cancel()
            everything = asyncio.gather(*(task for task, *_ in tasks), return_exceptions=True)
            for (_, request, images), got in zip(tasks, await everything, strict=True):
                if isinstance(got, asyncio.CancelledError):
                    assert request["fate"] == "cancelled"
                elif isinstance(got, RefusedError):
                    assert {"fails": "failed", "late": "late"}[request["fate"]] == got.kind
                else:
                    assert request["fate"] != "fails"
                    assert is_answer_to(got.logits, images)
                    assert request["n"] <= got.batch <= max_batch
            assert found.waiting_images == 0

    asyncio.run(main())


def test_a_deadline_that_passes_in_the_queue_is_refused_when_it_passes():
    async def main():
        clock, gate = StillClock(), Gate()
        async with scheduler(gate, clock) as found:
            running = ask(found, picture(1))
            waiting = ask(found, picture(2), deadline_s=clock.now() + 1.0)
            await turn()
            clock.advance(0.9)
            await turn()
            assert not waiting.done()
            clock.advance(0.2)
            assert (await refusal(waiting)).kind == "late"
            assert not running.done()  # the engine is still busy with the other
            assert found.waiting_images == 0
            gate.let()
            assert is_answer_to((await running).logits, picture(1))
            assert len(gate.seen) == 1

    asyncio.run(main())


def test_a_deadline_that_passes_in_the_engine_is_refused_too():
    async def main():
        clock, gate = StillClock(), Gate()
        async with scheduler(gate, clock) as found:
            stuck = ask(found, picture(1), deadline_s=clock.now() + 1.0)
            await turn()
            clock.advance(1.1)
            assert (await refusal(stuck)).kind == "late"
            following = ask(found, picture(2))
            gate.let(2)
            assert is_answer_to((await following).logits, picture(2))
            assert clock.pending == 0  # no timer is left behind

    asyncio.run(main())


def test_a_cancelled_request_leaves_the_queue_at_once():
    async def main():
        gate = Gate()
        async with scheduler(gate, max_queue=1) as found:
            running, gone = ask(found, picture(1)), ask(found, picture(2))
            await turn()
            gone.cancel()
            await turn()
            following = ask(found, picture(3))
            await turn()
            assert found.waiting_images == 1
            assert (await refusal(ask(found, picture(4)))).kind == "busy"
            gate.let(2)
            for task, number in ((running, 1), (following, 3)):
                assert is_answer_to((await task).logits, picture(number))
            assert [batch[0, 0, 0, 0] for batch in gate.seen] == [1, 3]

    asyncio.run(main())


def test_the_engine_does_not_wait_for_the_event_loop():
    async def main():
        gate = Gate()
        async with scheduler(gate) as found:
            tasks = [ask(found, picture(number)) for number in range(3)]
            await turn()
            gate.let(3)
            for _ in tasks:
                gate.wait_for_run()  # blocks the loop: all the same, all three are run
            assert [is_answer_to((await t).logits, picture(k)) for k, t in enumerate(tasks)]

    asyncio.run(main())


def test_slots_run_at_the_same_time():
    async def main():
        both = threading.Barrier(2, timeout=60)

        def run(images):
            both.wait()
            return echo(images)

        async with scheduler(run, slots=2) as found:
            tasks = [ask(found, picture(number)) for number in range(2)]
            for number, task in enumerate(tasks):
                assert is_answer_to((await task).logits, picture(number))

    asyncio.run(main())


def test_a_batch_waits_for_companions_and_no_longer_than_it_may():
    async def main():
        clock = StillClock()
        async with scheduler(echo, clock, max_batch=3, max_delay_s=0.010) as found:
            first = ask(found, picture(1))
            await turn()
            clock.advance(0.006)
            second = ask(found, picture(2))
            await turn()
            assert found.waiting_images == 2
            clock.advance(0.005)
            answers = await asyncio.gather(first, second)
            assert [answer.batch for answer in answers] == [2, 2]
            for answer, least in zip(answers, (0.010, 0.004), strict=True):
                assert least - 1e-6 < answer.queue_s < least + 0.002  # the clock went on 1 ms

    asyncio.run(main())


def test_alone_it_is_answered_though_the_delay_is_longer_than_its_deadline(monkeypatch):
    """On the real clock, whose timers are late: an idle engine must not refuse."""
    monkeypatch.setattr(dispatcher, "WAKE_MOST_S", 60.0)  # a quarter of the time, on a busy machine

    async def main():
        clock = LoopClock()
        async with scheduler(echo, clock, max_batch=4, max_delay_s=30.0) as found:
            found.seed(2, 3, 1, 0.0)
            answer = await ask(found, picture(7), deadline_s=clock.now() + 2.0)
            assert is_answer_to(answer.logits, picture(7))

    asyncio.run(main())


def test_in_a_hurry_what_waits_to_grow_is_started():
    async def main():
        clock = StillClock()
        async with scheduler(echo, clock, max_batch=4, max_delay_s=10.0) as found:
            waiting = ask(found, picture(1))
            await turn()
            assert found.waiting_images == 1
            found.hurry()
            assert is_answer_to((await waiting).logits, picture(1))

    asyncio.run(main())


def test_whoever_waits_beside_a_delayed_batch_is_not_forgotten():
    async def main():
        clock = StillClock()
        async with scheduler(echo, clock, max_batch=2, max_delay_s=1.0, slots=2) as found:
            other = [ask(found, picture(0)), ask(found, picture(1, size=(4, 4)))]
            await turn()
            full = ask(found, picture(2))  # fills the first batch; the other goes on waiting
            assert is_answer_to((await full).logits, picture(2))
            await other[0]
            assert not other[1].done()
            clock.advance(1.1)
            assert is_answer_to((await other[1]).logits, picture(1, size=(4, 4)))

    asyncio.run(main())


class TestFailures:
    def test_one_bad_request_does_not_fail_its_companions(self):
        def run(images):
            if 2 in images:
                raise ExecutionError("engine: 2 is bad")
            return echo(images)

        async def main():
            gate = Gate()
            engine = [gate]

            async with scheduler(lambda x: engine[0](x), max_batch=4) as found:
                first = ask(found, picture(0))
                await turn()
                gate.wait_for_run()
                engine[0] = run
                tasks = [ask(found, picture(number)) for number in (1, 2, 3)]
                await turn()
                gate.let()
                await first
                assert (await refusal(tasks[1])).kind == "failed"
                for number, task in ((1, tasks[0]), (3, tasks[2])):
                    assert is_answer_to((await task).logits, picture(number))
                assert found.lost is None

        asyncio.run(main())

    def test_the_client_is_not_told_what_the_log_is(self, caplog):
        def run(images):
            raise ExecutionError("segment head: /home/someone/plan is odd")

        async def main():
            async with scheduler(run) as found:
                error = await refusal(ask(found, picture(1)))
                assert (error.kind, error.code.http, error.code.grpc) == ("failed", 500, "INTERNAL")
                assert "someone" not in str(error)

        asyncio.run(main())
        assert "/home/someone/plan is odd" in caplog.text

    def test_a_bug_fails_the_request_and_not_the_worker(self):
        bugs = [ZeroDivisionError("bug")]

        def run(images):
            if bugs:
                raise bugs.pop()
            return echo(images)

        async def main():
            async with scheduler(run) as found:
                assert (await refusal(ask(found, picture(1)))).kind == "failed"
                assert is_answer_to((await ask(found, picture(2))).logits, picture(2))

        asyncio.run(main())

    def test_what_the_engine_does_not_accept_is_invalid(self):
        def run(images):
            raise InputError("input: got x, expected y. Do z.")

        async def main():
            async with scheduler(run) as found:
                error = await refusal(ask(found, picture(1)))
                assert (error.kind, "expected y" in str(error)) == ("invalid", True)

        asyncio.run(main())

    def test_a_lost_device_answers_nobody_any_more(self):
        calls = []

        def run(images):
            calls.append(len(images))
            raise DeviceLostError("device 0: lost", 0)

        async def main():
            async with scheduler(run, max_batch=2) as found:
                tasks = [ask(found, picture(number)) for number in range(4)]
                for task in tasks:
                    assert (await refusal(task)).kind == "not-ready"
                assert isinstance(found.lost, DeviceLostError)
                before = len(calls)
                assert (await refusal(ask(found, picture(5)))).kind == "not-ready"
                assert len(calls) == before  # it is not even tried

        asyncio.run(main())

    def test_an_engine_that_hangs_is_not_asked_for_each_of_its_batch_again(self):
        async def main():
            gate = Gate()
            engine, calls = [gate], []

            def run(images):
                calls.append(len(images))
                return engine[0](images)

            def hang(images):
                raise TimedOutError("plan: no answer in 1 s")

            async with scheduler(run, max_batch=4) as found:
                first = ask(found, picture(0))
                await turn()
                gate.wait_for_run()
                engine[0] = hang
                tasks = [ask(found, picture(number)) for number in (1, 2, 3)]
                await turn()
                gate.let()
                await first
                for task in tasks:
                    assert (await refusal(task)).kind == "not-ready"
                assert calls == [1, 3]
                assert found.lost is None  # it may come back
                engine[0] = echo
                assert is_answer_to((await ask(found, picture(4))).logits, picture(4))

        asyncio.run(main())

    def test_given_up_it_answers_nobody_not_even_those_that_wait(self):
        async def main():
            gate = Gate()
            async with scheduler(gate) as found:
                tasks = [ask(found, picture(number)) for number in range(3)]
                await turn()
                gate.wait_for_run()
                found.give_up(CheckFailedError("canary: wrong"))
                for task in (*tasks, ask(found, picture(4))):
                    error = await refusal(task)
                    assert error.kind == "not-ready"
                    assert "its engines give wrong logits" in str(error)
                gate.let()

        asyncio.run(main())


class TestEnd:
    def test_everything_is_refused_and_whatever_still_comes(self):
        async def main():
            gate = Gate()
            async with scheduler(gate) as found:
                tasks = [ask(found, picture(number)) for number in range(3)]
                await turn()
                found.refuse_all(GONE)
                for task in tasks:
                    assert (await refusal(task)) is GONE
                assert (await refusal(ask(found, picture(4)))) is GONE
                gate.let(3)
                assert await found.close(60)
                assert len(gate.seen) == 1  # those that waited never ran

        asyncio.run(main())

    def test_a_stuck_engine_does_not_keep_it_from_ending(self):
        async def main():
            gate = Gate()
            found = Scheduler(model="toy", run=gate, limits=Limits(), clock=LoopClock())
            task = ask(found, picture(1))
            await turn()
            found.refuse_all(GONE)
            assert (await refusal(task)) is GONE
            assert await found.close(0.0) is False
            gate.let()
            assert await found.close(60)

        asyncio.run(main())

    def test_images_are_not_kept_behind_their_answer(self):
        async def main():
            async with scheduler(echo) as found:
                images, freed = picture(1), threading.Event()
                weakref.finalize(images, freed.set)
                await ask(found, images)
                del images
                gc.collect()
                assert await asyncio.to_thread(freed.wait, 20)  # though nothing else comes

        asyncio.run(main())


class TestInPlace:
    def batch(self, *images):
        from parnet_deploy.serve.scheduling.ticket import Batch, Ticket

        tickets = (Ticket(x, level=5, deadline_s=1e9, queued_s=0) for x in images)
        return Batch(tuple(tickets), 0.0)

    def test_a_single_aligned_request_is_not_copied(self):
        seen = []
        images = picture(3, n=2)
        images.flags.writeable = False
        BatchRunner(lambda x: seen.append(x) or echo(x)).execute(self.batch(images))
        assert np.shares_memory(seen[0], images)

    @pytest.mark.parametrize("offset", [1, 2, 3])
    def test_an_unaligned_view_of_a_body_is_copied_once(self, offset):
        whole = picture(3, n=2)
        body = b"x" * offset + whole.tobytes()
        images = np.frombuffer(body, np.float32, whole.size, offset).reshape(whole.shape)
        seen = []

        def run(x):
            assert x.flags.aligned
            assert x.flags.c_contiguous
            seen.append(x.ctypes.data)
            return echo(x)

        runner = BatchRunner(run)
        for _ in range(2):
            (logits,) = runner.execute(self.batch(images))
            assert is_answer_to(logits, whole)
        assert seen[0] == seen[1]  # memory of the runner, used again

    def test_each_ticket_gets_its_rows(self):
        requests = [picture(k, n=n) for k, n in enumerate((2, 1, 3))]
        outcome = BatchRunner(echo).execute(self.batch(*requests))
        for logits, images in zip(outcome, requests, strict=True):
            assert is_answer_to(logits, images)
