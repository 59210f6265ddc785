"""A process that forks: the child is refused at once and may open its own; the parent goes on."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest

from parnet_deploy import Runtime
from tests.runtime.programs import run_program, write_known
from tests.runtime.test_session import EXPECTED, FAKE, STREAMS, X, close_to, publish

BACKENDS = ["onnxruntime", "fake"]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    path = tmp_path_factory.mktemp("engines") / "toy"
    publish(path, {"cpu": (STREAMS, 1.0, "2026-01-02"), "fake": (FAKE, 1.0, "2026-01-01")})
    write_known(path, X, EXPECTED)
    return path


def check(program: str, path, backend: str) -> None:
    done = run_program(program, path, backend)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_call_in_a_child_is_refused_and_the_parent_goes_on(deployment, backend):
    check(
        """
def child():
    out = np.full_like(expected, 7)
    calls = [
        lambda: rt(x),
        lambda: rt(memoryview(x)),
        lambda: rt.submit(x),
        lambda: rt.run_into(x.ctypes.data, out.ctypes.data, len(x)),
        lambda: rt.run_into(x.ctypes.data, out.ctypes.data, len(x), stream=1000),
        lambda: rt.enqueue(x, stream=1000),
        rt.describe,
        rt.timeline,
        lambda: rt.program,
    ]
    for call in calls:
        assert "opened in another process" in refused(call)
    assert (out == 7).all()
    rt.close()
    rt.close()
    assert rt.max_batch == 4


rt = open_runtime()
assert right(rt.submit(x).result())
assert fork(child) == 0
assert right(rt(x)) and right(rt.submit(x).result())
rt.close()
assert "it is closed" in refused(lambda: rt(x))
""",
        deployment,
        backend,
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("threads", [None, 2])
def test_a_child_opens_its_own_beside_the_parents(deployment, backend, threads):
    check(
        f"""
def child():
    with open_runtime(threads={threads}) as own:
        assert right(own(x)) and right(own.submit(x).result())
        assert fork(grandchild) == 0
        assert "opened in another process" in refused(lambda: rt(x))
    forgotten = open_runtime(threads={threads})
    assert right(forgotten(x))


def grandchild():
    assert "opened in another process" in refused(lambda: rt(x))
    with open_runtime(threads={threads}) as own:
        assert right(own(x))


rt = open_runtime(threads={threads})
assert right(rt(x))
for _ in range(3):
    assert fork(child) == 0
assert right(rt(x))
""",
        deployment,
        backend,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_child_inherits_may_become_garbage_there(deployment, backend):
    """To free an engine is to wait for its threads, which a child does not have."""
    check(
        """
def child():
    global rt
    with rt:
        pass
    del rt
    gc.collect()
    open_runtime().close()


rt = open_runtime(threads=4)
assert right(rt(x))
assert fork(child) == 0
assert right(rt(x))
""",
        deployment,
        backend,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_fork_while_others_call(deployment, backend):
    """Whatever lock another thread holds at that moment, the child does not wait for it."""
    check(
        """
def child():
    for call in (lambda: rt(x), lambda: rt.submit(x), rt.timeline, rt.describe):
        assert "opened in another process" in refused(call)
    rt.close()


def work():
    while not done.is_set():
        assert right(rt(x)) and right(rt.submit(x).result())


rt, done = open_runtime(), threading.Event()
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
codes = [fork(child) for _ in range(15)]
done.set()
for thread in threads:
    thread.join()
rt.close()
assert codes == [0] * 15
""",
        deployment,
        backend,
    )


def test_a_child_that_ends_at_once(deployment):
    check(
        """
rt = open_runtime()
assert right(rt(x))
pid = os.fork()
if pid == 0:
    os._exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
assert right(rt(x))
""",
        deployment,
        "onnxruntime",
    )


def answer_in_a_child(path: str, backend: str) -> np.ndarray:
    with Runtime.open(path, backend=backend) as rt:
        return rt(X)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_of_its_own_opens_its_own(deployment, method):
    with Runtime.open(deployment, backend="onnxruntime") as rt:
        assert close_to(rt(X), EXPECTED)
        with multiprocessing.get_context(method).Pool(2) as pool:
            asked = [(str(deployment), backend) for backend in BACKENDS]
            for logits in pool.starmap(answer_in_a_child, asked):
                assert close_to(logits, EXPECTED)
        assert close_to(rt(X), EXPECTED)


def test_a_runtime_is_not_handed_to_another_process(deployment):
    with (
        Runtime.open(deployment, backend="onnxruntime") as rt,
        multiprocessing.get_context("spawn").Pool(1) as pool,
        pytest.raises(TypeError, match="Open it in the other process"),
    ):
        pool.apply(len, (rt,))
