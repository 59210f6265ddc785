"""Which backend a build takes, and what it says where something is missing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from parnet_deploy.builder import gpus
from parnet_deploy.builder.gpus import check_ordinals, choose_backend, what_is_missing
from parnet_deploy.builder.options import BuildOptions
from parnet_deploy.errors import BackendError, DeviceUnavailableError, SpecError
from parnet_deploy.machine.gpus import Gpu, GpuReport

ALL = {"cuda.bindings", "tensorrt", "onnxruntime"}


def machine(monkeypatch, capabilities=(), packages=ALL, provider=True, why="no NVIDIA driver"):
    """Pretend that the machine has such GPUs and packages."""
    found = tuple(
        Gpu(
            ordinal=i,
            name=f"GPU type {capability}",
            compute_capability=capability,
            memory_mib=1024,
            multiprocessors=8,
            uuid=f"GPU-{i}",
            pci_bus=f"0000:0{i}:00.0",
        )
        for i, capability in enumerate(capabilities)
    )

    def check_provider() -> None:
        if not provider:
            raise DeviceUnavailableError("onnxruntime: got the CPU's package. Run: pip.")

    module = SimpleNamespace(check_provider=check_provider)
    monkeypatch.setattr(gpus, "probe_gpus", lambda: (len(found), "" if found else why))
    monkeypatch.setattr(gpus, "read_gpus", lambda: GpuReport(gpus=found))
    monkeypatch.setattr(gpus, "_installed", lambda name: name in packages)
    monkeypatch.setattr(gpus, "import_module", lambda name: module)


def backend(**options) -> str | None:
    return choose_backend(BuildOptions(**options)).backend


def test_without_a_gpu_nothing_changes(monkeypatch) -> None:
    machine(monkeypatch)
    assert backend() == "onnxruntime"
    assert backend(backend="fake", gpus=(0, 1, 2)) == "fake"


def test_with_a_gpu_the_best_backend_that_is_installed_is_taken(monkeypatch) -> None:
    machine(monkeypatch, ["9.0"])
    assert backend() == "tensorrt"
    assert backend(gpus=(0, 0, 0)) == "tensorrt"
    assert backend(backend="onnxruntime") == "onnxruntime"
    machine(monkeypatch, ["9.0"], packages={"cuda.bindings", "onnxruntime"})
    assert backend() == "onnxruntime-cuda"
    machine(monkeypatch, ["9.0"], packages={"cuda.bindings", "tensorrt_bindings"})
    assert backend() == "tensorrt"
    machine(monkeypatch, ["9.0"], packages={"onnxruntime"}, provider=False)
    assert backend() == "onnxruntime"


def test_gpus_without_a_driver_name_the_ways_that_work(monkeypatch) -> None:
    machine(monkeypatch)
    with pytest.raises(DeviceUnavailableError) as caught:
        backend(gpus=(0, 1))
    assert str(caught.value) == (
        "--gpus 0,1: no NVIDIA driver. On the CPU run: parnet-deploy build; to simulate the GPUs: "
        "parnet-deploy build --gpus 0,1 --backend fake."
    )


def test_gpus_without_packages_name_each_with_its_fix(monkeypatch) -> None:
    machine(monkeypatch, ["9.0"], packages={"cuda.bindings"})
    with pytest.raises(DeviceUnavailableError) as caught:
        backend(gpus=(0,))
    for text in ("1 here, but tensorrt needs the package tensorrt", "onnxruntime-cuda needs the",
                 "pip install 'parnet-deploy[gpu]'"):  # fmt: skip
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "packages", "provider", "text"),
    [
        ("tensorrt", {"tensorrt"}, True, "tensorrt needs the package cuda-bindings"),
        ("tensorrt", {"cuda.bindings"}, True, "tensorrt needs the package tensorrt"),
        ("onnxruntime-cuda", {"cuda.bindings"}, True, "needs the package onnxruntime-gpu"),
        ("onnxruntime-cuda", ALL, False, "got the CPU's package"),
    ],
)
def test_a_named_backend_says_what_it_lacks(monkeypatch, asked, packages, provider, text) -> None:
    machine(monkeypatch, ["9.0"], packages=packages, provider=provider)
    assert text in what_is_missing(asked)
    with pytest.raises(DeviceUnavailableError, match=f"^backend {asked}: .*{text}"):
        backend(backend=asked)


@pytest.mark.parametrize("asked", gpus.GPU_BACKENDS)
def test_a_named_backend_without_a_driver(monkeypatch, asked) -> None:
    machine(monkeypatch)
    with pytest.raises(DeviceUnavailableError, match=f"backend {asked}: no NVIDIA driver. On the"):
        backend(backend=asked)


def test_the_cpu_backend_has_no_gpus(monkeypatch) -> None:
    machine(monkeypatch, ["9.0"])
    with pytest.raises(DeviceUnavailableError, match="the backend onnxruntime runs on the CPU"):
        backend(backend="onnxruntime", gpus=(0,))


@pytest.mark.parametrize(
    ("asked", "count", "text"),
    [((0, 5), 2, "got 5, expected 0 to 1: this machine has 2"), ((1,), 1, "expected 0: this")],
)
def test_gpus_that_are_not_there(monkeypatch, asked, count, text) -> None:
    with pytest.raises(DeviceUnavailableError, match=text):
        check_ordinals(asked, count)
    machine(monkeypatch, ["9.0"] * count)
    with pytest.raises(DeviceUnavailableError, match=text):
        backend(gpus=asked)


def test_gpus_of_two_kinds_are_refused_for_tensorrt_only(monkeypatch) -> None:
    machine(monkeypatch, ["8.6", "9.0", "9.0"])
    with pytest.raises(DeviceUnavailableError, match="GPUs of different kinds: 0 is GPU"):
        backend(gpus=(0, 1))
    assert backend(gpus=(1, 2)) == "tensorrt"
    assert backend(gpus=(0, 1), backend="onnxruntime-cuda") == "onnxruntime-cuda"


def test_options_are_held_against_the_backend_that_was_chosen(monkeypatch) -> None:
    machine(monkeypatch)
    with pytest.raises(SpecError, match="with backend onnxruntime, expected backend tensorrt"):
        backend(optimization_level=5)
    with pytest.raises(BackendError, match="Did you mean tensorrt"):
        backend(backend="tensort")


def test_a_package_whose_parent_is_missing_is_missing() -> None:
    assert not gpus._installed("no_such_package.inside")
    assert gpus._installed("json.decoder")
