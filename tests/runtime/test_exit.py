"""The interpreter ends while a runtime works: the right exit code, no crash, no traceback."""

from __future__ import annotations

import signal

import pytest

from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import one, streams
from tests.runtime.programs import run_program, write_known
from tests.runtime.runtime_toys import images, make_plan, reference
from tests.runtime.test_session import SPEC, publish

BACKENDS = ["onnxruntime", "fake"]
SIZE = InputSize(low=(256, 256), high=(256, 256))  # an engine is at work nearly all of the time

BUSY = """
rt = open_runtime()
assert right(rt(x))


def work():
    begun.release()
    while True:
        rt(x)


begun = threading.Semaphore(0)
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
    begun.acquire()
"""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    path = tmp_path_factory.mktemp("engines") / "toy"
    plans = {
        "cpu": (make_plan(streams(SPEC), SIZE, 2, threads=2), 1.0, "2026-01-02"),
        "fake": (make_plan(one(SPEC), SIZE, 2, backend="fake"), 1.0, "2026-01-01"),
    }
    publish(path, plans)
    x = images(SPEC, 2, size=SIZE.low)
    write_known(path, x, reference(SPEC, x))
    return path


def ends(program: str, path, backend: str) -> tuple[int, str]:
    done = run_program(program, path, backend)
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("backend", "end", "code"),
    [
        ("onnxruntime", "", 0),
        ("fake", "", 0),
        ("onnxruntime", "sys.exit(7)", 7),
        ("onnxruntime", "os._exit(9)", 9),
        ("onnxruntime", "threading.excepthook = lambda _: None\nrt.close()", 0),
    ],
    ids=["falls off", "falls off, fake", "sys.exit", "os._exit", "closed"],
)
def test_daemon_threads_in_the_middle_of_calls(deployment, backend, end, code):
    assert ends(BUSY + end, deployment, backend) == (code, "")


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_ends_well_every_time(deployment, backend):
    for _ in range(8):
        assert ends(BUSY, deployment, backend) == (0, "")


def test_an_exception_keeps_its_traceback_and_nothing_is_added(deployment):
    code, said = ends(BUSY + "raise ValueError('mine')", deployment, "onnxruntime")
    assert code == 1
    assert said.count("Traceback") == 1
    assert said.endswith("ValueError: mine\n")


def test_sigterm_ends_it_as_any_process(deployment):
    program = BUSY + "os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)"
    assert ends(program, deployment, "onnxruntime") == (-signal.SIGTERM, "")


def test_ctrl_c_in_the_middle_of_a_call(deployment):
    program = BUSY + "signal.setitimer(signal.ITIMER_REAL, 0.05)\nwhile True: rt(x)"
    program = program.replace("rt = open", "signal.signal(signal.SIGALRM, interrupt)\nrt = open")
    program = "def interrupt(*_): sys.exit(4)\n" + program
    assert ends(program, deployment, "onnxruntime") == (4, "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_submitted_is_answered_before_the_end(deployment, backend):
    program = """
rt = open_runtime()
answered = []
futures = [rt.submit(x) for _ in range(6)]
for future in futures:
    future.add_done_callback(lambda future: answered.append(right(future.result())))
atexit.register(lambda: os._exit(0 if answered == [True] * 6 else 1))
"""
    assert ends(program, deployment, backend) == (0, "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_daemon_thread_that_submits(deployment, backend):
    program = BUSY.replace("rt(x)\n\n\nbegun", "rt.submit(x).result()\n\n\nbegun")
    assert program != BUSY
    assert ends(program, deployment, backend) == (0, "")


def test_a_thread_that_is_no_daemon_is_waited_for(deployment):
    program = """
def work():
    for _ in range(20):
        assert right(rt(x))
    sys.stderr.write("done")


rt = open_runtime()
threading.Thread(target=work).start()
"""
    assert ends(program, deployment, "onnxruntime") == (0, "done")


def test_a_handler_at_exit_may_close_and_is_refused_afterwards(deployment):
    program = (
        """
def last():
    rt.close()
    assert "it is closed" in refused(lambda: rt(x))
    assert "it is closed" in refused(lambda: rt.submit(x))


atexit.register(last)
"""
        + BUSY
    )
    assert ends(program, deployment, "onnxruntime") == (0, "")


def test_one_that_is_opened_by_a_daemon_thread_at_the_end(deployment):
    program = """
def work():
    while True:
        opened = open_runtime()
        begun.release()
        opened(x)


begun = threading.Semaphore(0)
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
    begun.acquire()
"""
    for _ in range(3):
        assert ends(program, deployment, "onnxruntime") == (0, "")
