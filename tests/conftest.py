"""What all tests share: capability markers, and hypothesis without time limits."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Callable

import pytest

if importlib.util.find_spec("hypothesis") is not None:  # an image's Python may do without
    from hypothesis import settings

    settings.register_profile("parnet", deadline=None, derandomize=True)
    settings.load_profile("parnet")


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


CAPABILITIES: dict[str, Callable[[], str | None]] = {
    "gpu": missing_gpu,
    "tensorrt": missing_tensorrt,
    "ray": lambda: missing_module("ray", "ray"),
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run here and name what is missing; PARNET_REQUIRE_GPU=1 fails instead."""
    for marker, find_missing in CAPABILITIES.items():
        if item.get_closest_marker(marker) is None:
            continue
        missing = find_missing()
        if missing is None:
            continue
        if os.environ.get("PARNET_REQUIRE_GPU") == "1":
            pytest.fail(f"needs {missing}, and PARNET_REQUIRE_GPU=1 forbids to skip", pytrace=False)
        pytest.skip(f"needs {missing}")
