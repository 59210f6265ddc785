"""The table of backends."""

from __future__ import annotations

import sys

import pytest

from parnet_deploy.errors import BackendError, MissingExtraError
from parnet_deploy.placement import one, streams
from parnet_deploy.runtime.backend import (
    BACKENDS,
    BackendEntry,
    backend_rank,
    extras_of,
    import_for,
    is_installed,
    load_backend,
)
from tests.runtime.runtime_toys import SPECS, fixed_size, make_plan


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_of_the_table_is_there_or_names_its_extra(name):
    if is_installed(name):
        assert load_backend(name).name == name
        return
    with pytest.raises(MissingExtraError, match=rf"parnet-deploy\[{BACKENDS[name].extra}\]"):
        load_backend(name)


def test_a_package_is_looked_for_and_not_imported(tmp_path, monkeypatch):
    for module in ("ncnn", "MNN"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    (tmp_path / "ncnn.py").write_text("raise SystemExit")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    sys.path_importer_cache.clear()
    assert is_installed("ncnn")
    assert not is_installed("mnn")
    assert is_installed("fake"), "it has no package"
    assert is_installed("mixed")


def test_a_plan_needs_the_extras_of_its_backends():
    assert extras_of(make_plan(one(SPECS[2]), fixed_size(SPECS[2]))) == ("cpu",)
    placement = streams(SPECS[3])
    homes = dict.fromkeys((segment.name for segment in placement.segments), "openvino")
    plan = make_plan(
        placement, fixed_size(SPECS[3]), backend="mixed", backends={**homes, "head": "mnn"}
    )
    assert extras_of(plan) == ("mnn", "openvino"), "a mix does not need ONNX Runtime"


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
