"""The table of backends."""

from __future__ import annotations

import sys

import pytest

from parnet_deploy.errors import BackendError, MissingExtraError
from parnet_deploy.runtime.backend import (
    BACKENDS,
    BackendEntry,
    backend_rank,
    import_for,
    load_backend,
)


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_of_the_table_is_there(name):
    assert load_backend(name).name == name


def test_a_simulation_ranks_last():
    assert max(BACKENDS, key=backend_rank) == "fake"


def test_an_unknown_name_is_answered_with_the_names_and_a_guess():
    with pytest.raises(
        BackendError,
        match=r"got 'onxruntime', expected one of tensorrt, onnxruntime.* Did you mean onnxruntime",
    ):
        load_backend("onxruntime")
    with pytest.raises(BackendError, match=r"expected one of .*fake\.$"):
        backend_rank("zzz")


def test_a_missing_package_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "parnet_deploy.runtime.onnxruntime.cpu", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'parnet-deploy\[cpu\]'") as caught:
        load_backend("onnxruntime")
    assert (caught.value.package, caught.value.extra) == ("onnxruntime", "cpu")


def test_a_bug_of_ours_is_not_called_a_missing_package(monkeypatch):
    with pytest.raises(ModuleNotFoundError) as caught:
        import_for("parnet_deploy.runtime.nothing", "cpu")
    assert not isinstance(caught.value, BackendError)
    monkeypatch.setitem(
        BACKENDS, "odd", BackendEntry("parnet_deploy.runtime.host:X", "cpu", 1, "cpu")
    )
    with pytest.raises(AttributeError):
        load_backend("odd")
