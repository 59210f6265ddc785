"""What all tests share: capability markers, and hypothesis without time limits."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Iterator

import pytest

if importlib.util.find_spec("hypothesis") is not None:  # an image's Python may do without
    from hypothesis import settings

    settings.register_profile("parnet", deadline=None, derandomize=True)
    settings.load_profile("parnet")


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """The command line owns its process and its loggers: they are put back after each test."""
    package, root = logging.getLogger("parnet_deploy"), logging.getLogger()
    before = (package.handlers, package.level, package.propagate, root.level)
    yield
    package.handlers, level, package.propagate, root_level = before
    package.setLevel(level)
    root.setLevel(root_level)


def missing_gpu() -> str | None:
    """What a test marked ``gpu`` lacks here; None if nothing."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "the NVIDIA driver (libcuda.so.1)"
    if hasattr(driver, "stub_reset"):  # see tests/stubs/cuda_stub.py
        return "a process without the stand-in driver (make test-gpu)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or not count:
        return "an NVIDIA GPU (the driver is there and shows none)"
    return missing_module("cuda", "gpu")


def missing_tensorrt() -> str | None:
    """What a test marked ``tensorrt`` lacks here; None if nothing."""
    return missing_module("tensorrt", "gpu") or missing_gpu()


def missing_module(name: str, extra: str) -> str | None:
    """The pip command for a package that is not installed; None if it is."""
    if importlib.util.find_spec(name) is not None:
        return None
    return f"the package {name} (pip install 'parnet-deploy[{extra}]')"


def missing_browser() -> str | None:
    """What a test marked ``browser`` lacks here; None if nothing."""
    if find_browser() is None:
        return "Chromium (Debian: apt install chromium)"
    return missing_module("starlette", "serve")


def find_browser() -> str | None:
    """The path of a Chromium; None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


def missing_compiler() -> str | None:
    """What a test marked ``compiler`` lacks here; None if nothing."""
    from tests import cmake

    return cmake.missing_compiler()


CAPABILITIES: dict[str, Callable[[], str | None]] = {
    "gpu": missing_gpu,
    "tensorrt": missing_tensorrt,
    "browser": missing_browser,
    "compiler": missing_compiler,
    "ray": lambda: missing_module("ray", "ray"),
}

REQUIRED = {
    "gpu": "PARNET_REQUIRE_GPU",
    "tensorrt": "PARNET_REQUIRE_GPU",
    "browser": "PARNET_REQUIRE_BROWSER",
    "compiler": "PARNET_REQUIRE_COMPILER",
}
"""The variable that turns a skip for want of a capability into a failure."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run here and name what is missing; fail if it may not be skipped."""
    for marker, find_missing in CAPABILITIES.items():
        if item.get_closest_marker(marker) is None:
            continue
        missing = find_missing()
        if missing is None:
            continue
        required = REQUIRED[marker]
        if os.environ.get(required) == "1":
            pytest.fail(f"needs {missing}, and {required}=1 forbids to skip", pytrace=False)
        pytest.skip(f"needs {missing}")
