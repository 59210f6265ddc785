"""The library in real programs: without Python, as a plugin, and inside Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parnet_deploy import Runtime
from parnet_deploy.capi import CMAKE_DIR
from parnet_deploy.capi.status import Status
from tests.cmake import build_project
from tests.digits import IMAGES, ROOT
from tests.docs.pages import read_blocks

pytestmark = [pytest.mark.compiler, pytest.mark.slow]

OK = int(Status.OK)


def run(*command: object, code: int = 0, **environment: str) -> str:
    """What a program prints. It gets no variable that would help Python find its packages."""
    clean = {"PATH": os.environ["PATH"], "OMP_WAIT_POLICY": "PASSIVE", "LC_ALL": "C", **environment}
    done = subprocess.run(
        list(map(str, command)), env=clean, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr == b""
    return done.stdout.decode("utf-8")


@pytest.fixture(scope="module")
def images(digits: Path):
    """Two real images and a random one, as network input (3, 3, 32, 32)."""
    from parnet_deploy.deployment import Deployment
    from parnet_deploy.preprocess import Preprocessing, load_image

    preprocessing = Preprocessing.from_json(Deployment.open(digits).preprocessing)
    real = [load_image(sorted((IMAGES / k).iterdir())[0], preprocessing) for k in "37"]
    noise = np.random.default_rng(0).standard_normal((3, 32, 32)).astype(np.float32)
    return np.stack([*real, noise])


@pytest.fixture(scope="module")
def said(
    programs: Path, digits: Path, images, tmp_path_factory
) -> dict[str, list[tuple[int, str]]]:
    """What the host printed, by what it did; ``logits`` is beside it."""
    folder = tmp_path_factory.mktemp("host")
    images.tofile(folder / "images")
    # Variables that would break a Python which heeds them.
    broken = {"PYTHONHOME": "/nonexistent", "PYTHONPATH": "/nonexistent"}
    printed = run(
        programs / "host", digits, folder / "images", len(images), folder / "logits", **broken
    )
    found: dict[str, list[tuple[int, str]]] = {}
    for line in printed.splitlines():
        what, status, message = line.split("\t")
        found.setdefault(what, []).append((int(status), message))
    found["logits"] = [(0, str(folder / "logits"))]
    return found


def test_four_threads_get_the_logits_that_python_gets(said, digits, images) -> None:
    assert said["threads agree"] == [(1, "")]
    got = np.fromfile(said["logits"][0][1], np.float32).reshape(-1, 10)
    with Runtime.open(digits, threads=1) as runtime:
        wanted = np.concatenate([runtime(image[None]) for image in images])
    assert np.array_equal(got, wanted)
    assert list(got[:2].argmax(1)) == [3, 7]


def test_the_description(said, digits) -> None:
    assert said["open"] == said["describe"] == [(OK, "")]
    shape = "3 32 32 32 32 10 4 onnxruntime onnxruntime-fp32-one-1threads"
    assert said["shape"] == [(0, shape)]
    assert said["abi"] == [(1, "")]


@pytest.mark.parametrize(
    ("what", "status", "words"),
    [
        ("open null path", "INPUT", "a null path"),
        ("open null handle", "INPUT", "null for runtime"),
        ("open missing", "DEPLOYMENT", "no/such/deployment"),
        ("open slots", "INPUT", "slots: got -1, expected 1 to 1024."),
        ("open backend", "BACKEND", "abacus"),
        ("open plan", "DEPLOYMENT", "no-such-plan"),
        ("open plan not utf-8", "DEPLOYMENT", "\ufffd"),
        ("describe null handle", "INPUT", "a null handle"),
        ("describe null", "INPUT", "parnet_describe: got null"),
        ("run null handle", "INPUT", "a null handle"),
        ("run null images", "INPUT", "in_ptr: got address 0x0"),
        ("run null logits", "INPUT", "out_ptr: got address 0x0"),
        ("run none", "INPUT", "batch: got 0, expected 1 to 4."),
        ("run negative", "INPUT", "batch: got -1, expected 1 to 4."),
        ("run too many", "INPUT", "batch: got 5, expected 1 to 4."),
        ("run size", "INPUT", "got 48x48, expected 32x32"),
        ("run after close", "BACKEND", "it is closed. Open it again with parnet_open."),
        ("describe after close", "BACKEND", "it is closed. Open it again with parnet_open."),
    ],
)
def test_a_refusal_has_a_status_and_our_message(said, what, status, words) -> None:
    ((got, message),) = said[what]
    assert got == Status[status]
    assert words in message


@pytest.mark.parametrize(
    "what", ["run", "close null", "close at work", "close again", "open again"]
)
def test_what_goes_well_leaves_no_message(said, what) -> None:
    assert said[what] == [(OK, "")]


def test_a_refusal_touches_nothing(said) -> None:
    assert said["handle after refusal"] == [(0, "")]
    assert said["logits untouched"] == [(1, "")]


def test_messages_are_the_threads_own(said) -> None:
    assert said["before any call"] == said["failure of another thread"] == [(0, "")]


def test_closing_lets_calls_in_flight_end_and_refuses_the_rest(said) -> None:
    assert said["thread refused"] == [(int(Status.BACKEND), "")] * 4


def test_a_thread_that_has_ended_keeps_nothing(said) -> None:
    ((pages, _),) = said["pages of ended threads"]
    assert pages < 500  # of 1000 threads, each of which had at least four


def test_a_plugin_host_with_local_symbols(programs, digits) -> None:
    assert run(programs / "plugin", programs / "libparnet_deploy.so", digits) == "0 \n"


def test_the_header_is_cpp_too(programs) -> None:
    run(programs / "header")


def test_another_python_is_named_by_a_variable(programs, digits, tmp_path) -> None:
    """A virtual environment of the same Python, which has the packages through a .pth file."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    plugin = (programs / "plugin", programs / "libparnet_deploy.so", digits)
    printed = run(*plugin, PARNET_PYTHON=str(python))
    missing = "python: it cannot import parnet_deploy (No module named 'parnet_deploy'). Install"
    assert printed.startswith(f"{int(Status.PYTHON)} {missing}")
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "packages.pth").write_text("\n".join(filter(os.path.isdir, sys.path)))
    assert run(*plugin, PARNET_PYTHON=str(python)) == "0 \n"


def test_a_python_that_is_not_there_is_named(programs, digits) -> None:
    plugin = (programs / "plugin", programs / "libparnet_deploy.so", digits)
    printed = run(*plugin, PARNET_PYTHON="/no/python")
    assert printed.startswith(f"{int(Status.PYTHON)} python /no/python: got No such file")


INSIDE = """
import ctypes, signal, sys
import numpy as np
from parnet_deploy import Runtime
from parnet_deploy.capi import bridge

signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored where tests begin
library = ctypes.CDLL(sys.argv[1])
library.parnet_last_error.restype = ctypes.c_char_p
handle = ctypes.c_void_p()
path = sys.argv[2].encode()
assert library.parnet_open(path, None, ctypes.byref(handle)) == 0, library.parnet_last_error()
image = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
logits = np.empty((1, 10), np.float32)
pointers = (ctypes.c_void_p(array.ctypes.data) for array in (image, logits))
assert library.parnet_run_into(handle, *pointers, 1) == 0, library.parnet_last_error()
with Runtime.open(sys.argv[2]) as runtime:
    assert np.array_equal(runtime(image), logits)
assert library.parnet_close(handle) == 0

def interrupt(*arguments):
    raise KeyboardInterrupt

bridge.open_runtime = interrupt  # the running interpreter's own module answers
try:
    status = library.parnet_open(path, None, ctypes.byref(handle))
    for _ in range(1000):
        pass
except KeyboardInterrupt:
    print("interrupted")
"""


def test_inside_python_it_joins_the_interpreter(programs, digits) -> None:
    library = programs / "libparnet_deploy.so"
    assert run(sys.executable, "-c", INSIDE, library, digits) == "interrupted\n"


def test_another_version_of_the_package_is_refused(programs, digits) -> None:
    script = (
        "import ctypes, sys; from parnet_deploy.capi import bridge; bridge.ABI_VERSION = 2\n"
        "library = ctypes.CDLL(sys.argv[1]); library.parnet_last_error.restype = ctypes.c_char_p\n"
        "handle = ctypes.c_void_p(1)\n"
        "status = library.parnet_open(sys.argv[2].encode(), None, ctypes.byref(handle))\n"
        "print(status, handle.value, library.parnet_last_error().decode())"
    )
    printed = run(sys.executable, "-c", script, programs / "libparnet_deploy.so", digits)
    assert printed.startswith(f"{int(Status.PYTHON)} None parnet_deploy: got ABI version 2")


def test_the_example_in_c(digits, images, tmp_path) -> None:
    """examples/embed_c as its README.md builds it."""
    built = build_project(ROOT / "examples" / "embed_c", tmp_path / "build")
    images[1].tofile(tmp_path / "seven")
    printed = run(built / "embed_c", digits, tmp_path / "seven")
    first, second = printed.splitlines()
    assert first == "plan onnxruntime-fp32-one-1threads on onnxruntime: 3x32x32, 10 classes"
    assert second.startswith("class 7, logit ")
    clean = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [built / "embed_c", "/nowhere"], env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("embed_c: deployment /nowhere")


def test_a_python_without_the_package_is_refused_when_cmake_runs(tmp_path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    with pytest.raises(AssertionError, match=r"not installed in\s+\S*/venv/bin/python"):
        build_project(
            CMAKE_DIR, tmp_path / "build", f"-DPython3_EXECUTABLE={tmp_path / 'venv/bin/python'}"
        )


def test_the_program_in_the_documentation(digits, programs, tmp_path) -> None:
    """The block in docs/embedding.md, as it stands there, with its relative path."""
    (block,) = (b for b in read_blocks(ROOT / "docs" / "embedding.md") if b.language == "c")
    source = shutil.copytree(ROOT / "examples" / "embed_c", tmp_path / "source")
    (source / "main.c").write_text(block.text, encoding="utf-8")
    program = build_project(source, tmp_path / "build") / "embed_c"
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines" / "digits").symlink_to(digits)
    done = subprocess.run([program], cwd=tmp_path, capture_output=True, text=True, check=True)
    with Runtime.open(digits) as runtime:
        logits = runtime(np.zeros((1, 3, 32, 32), np.float32))
    assert done.stdout == f"{logits[0, 0]:.5f}\n"
