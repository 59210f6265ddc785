"""Tests over the stand-in for the CUDA driver, in processes of their own.

``tests/test_cuda_stub.py`` starts a process for each file. A process that loaded the stand-in keeps
it for good, so these files are collected only where somebody names them or this folder:
``pytest tests/runtime_gpu/test_cuda_device.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stubs.cuda_stub import CudaStub, load_stub, missing_compiler

FOLDER = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these files out unless the command line names them or their folder."""
    named = [Path(config.invocation_params.dir, str(a).split("::")[0]) for a in config.args]
    return None if any(path.resolve().is_relative_to(FOLDER) for path in named) else True


@pytest.fixture(scope="session")
def stub() -> CudaStub:
    """The stand-in, loaded before cuda.bindings asks for a driver."""
    missing = missing_compiler()
    if missing is None:
        return load_stub()
    if os.environ.get("PARNET_REQUIRE_STUBS") == "1":
        pytest.fail(f"needs {missing}, and PARNET_REQUIRE_STUBS=1 forbids to skip", pytrace=False)
    pytest.skip(f"needs {missing}")


@pytest.fixture
def cuda(stub: CudaStub) -> Iterator[CudaStub]:
    """A fresh machine of two devices. No kernel may have raised, no context be left behind."""
    stub.reset()
    yield stub
    assert stub.errors == []
    assert stub.depth == 0, "a context was left on the stack of this thread"
