"""The model repository: what is in it, what is skipped, and what is never overwritten."""

from __future__ import annotations

import errno
import json
import os
import stat

import pytest

from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import DeploymentCorruptError, DeploymentError
from parnet_deploy.runtime.session import Runtime
from parnet_deploy.signing.sign import sign_deployment
from parnet_deploy.storage.document import seal
from parnet_deploy.triton import repository as written
from parnet_deploy.triton.export import export_to_repository
from parnet_deploy.triton.options import TritonOptions
from tests.runtime.runtime_toys import images, reference
from tests.signing.keys import make_pair
from tests.triton.conftest import LABELS, SPEC, add_plan, add_tensorrt


def files_in(folder):
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_python_kind_holds_a_whole_deployment(toy, tmp_path):
    result = export_to_repository(toy, tmp_path / "models")
    assert result.path == tmp_path / "models/toy"
    assert not result.skipped
    assert (result.path / "labels.txt").read_text().splitlines() == list(LABELS)
    copy = Deployment.open(result.path / "1/deployment")
    assert copy.verify()
    assert copy.digest == Deployment.open(toy).digest
    x = images(SPEC, batch=2)
    with Runtime.open(copy.path) as runtime:
        assert runtime(x) == pytest.approx(reference(SPEC, x), abs=1e-5)


def test_engine_kinds_hold_the_engine_itself(toy, tmp_path):
    onnx = export_to_repository(toy, tmp_path / "a", TritonOptions(kind="onnxruntime")).path
    engine = next((toy / "plans").rglob("all.onnx"))
    assert (onnx / "1/model.onnx").read_bytes() == engine.read_bytes()
    add_tensorrt(toy)
    plan = export_to_repository(toy, tmp_path / "b", TritonOptions(kind="tensorrt")).path
    assert (plan / "1/model.plan").read_bytes() == b"an engine"
    assert sorted(path.name for path in plan.iterdir()) == [
        *("1", "config.pbtxt", "labels.txt", "parnet-deploy.json")
    ]


def test_unchanged_is_skipped_and_changed_options_are_not(toy, tmp_path):
    first = export_to_repository(toy, tmp_path)
    before = files_in(first.path)
    again = export_to_repository(toy, tmp_path)
    assert again.skipped
    assert dict(again.report) == dict(first.report)
    assert files_in(first.path) == before
    other = export_to_repository(toy, tmp_path, TritonOptions(replicas=2))
    assert not other.skipped
    assert b"count: 2" in files_in(first.path)["config.pbtxt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engines", "toy"]


def test_what_python_leaves_beside_the_model_is_no_change(toy, tmp_path):
    model = export_to_repository(toy, tmp_path).path
    (model / "1/__pycache__").mkdir()
    (model / "1/__pycache__/model.pyc").write_bytes(b"x")
    assert export_to_repository(toy, tmp_path).skipped
    assert not export_to_repository(toy, tmp_path, TritonOptions(replicas=2)).skipped


def make_foreign(model):
    model.mkdir()
    (model / "config.pbtxt").write_text("mine")


def make_edited(model):
    path = model / "config.pbtxt"
    path.write_text(path.read_text() + "# tuned\n")


def make_longer(model):
    (model / "warmup").mkdir()
    (model / "warmup/input").write_text("mine")


def make_unsealed(model):
    path = model / "parnet-deploy.json"
    path.write_text(path.read_text().replace("python", "tensorrt"))


@pytest.mark.parametrize(
    ("harm", "exported", "text"),
    [
        (make_foreign, False, "got a directory without parnet-deploy.json, expected nothing"),
        (make_edited, True, "got files that were changed since: config.pbtxt"),
        (make_longer, True, "got files that were changed since: warmup/input"),
        (make_unsealed, True, "does not match its sha256"),
        (lambda model: model.write_text("mine"), False, "got something that is no directory"),
        (lambda model: model.symlink_to("/"), False, "got something that is no directory"),
    ],
)
def test_what_is_not_ours_is_never_overwritten(toy, tmp_path, harm, exported, text):
    target = tmp_path / "models"
    if exported:
        export_to_repository(toy, target)
    target.mkdir(exist_ok=True)
    harm(target / "toy")
    before = files_in(target)
    with pytest.raises(DeploymentError, match=text):
        export_to_repository(toy, target, TritonOptions(replicas=2))
    assert files_in(target) == before


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "1/../../outside", "..\\outside", "a\0b", "1/model.py/x"]
)
def test_a_record_that_names_files_elsewhere_is_refused(toy, tmp_path, name):
    model = export_to_repository(toy, tmp_path / "models").path
    (tmp_path / "models" / "outside").write_text("not ours")
    record = json.loads((model / "parnet-deploy.json").read_bytes())
    del record["sha256"]
    record["files"][name] = "0" * 64
    (model / "parnet-deploy.json").write_bytes(seal(record))
    before = files_in(tmp_path / "models")
    with pytest.raises(DeploymentError, match="got files that were changed since"):
        export_to_repository(toy, tmp_path / "models")
    assert files_in(tmp_path / "models") == before


def test_a_signature_travels_with_a_whole_deployment(toy, tmp_path):
    pytest.importorskip("cryptography")
    pair = make_pair(tmp_path / "keys")
    first = export_to_repository(toy, tmp_path / "models")
    assert not first.skipped
    sign_deployment(toy, pair.key)
    again = export_to_repository(toy, tmp_path / "models")
    assert not again.skipped, "signed since"
    assert export_to_repository(toy, tmp_path / "models").skipped
    with Runtime.open(again.path / "1/deployment", trusted_keys=[pair.public]):
        pass


def test_a_damaged_deployment_is_refused_and_leaves_nothing(toy, tmp_path):
    engine = next((toy / "plans").rglob("all.onnx"))
    engine.write_bytes(engine.read_bytes()[:-1])
    with pytest.raises(DeploymentCorruptError, match=r"all\.onnx"):
        export_to_repository(toy, tmp_path / "models")
    assert files_in(tmp_path / "models") == {}


@pytest.mark.parametrize("step", ["hash_file", "fsync_path"])
def test_a_full_disk_leaves_what_was_there(toy, tmp_path, monkeypatch, step):
    export_to_repository(toy, tmp_path)
    before = files_in(tmp_path / "toy")
    real = getattr(written, step)

    def fail(path):
        if ".parnet-deploy-" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path)

    monkeypatch.setattr(written, step, fail)
    with pytest.raises(DeploymentError, match="No space left on device, expected a writable disk"):
        export_to_repository(toy, tmp_path, TritonOptions(replicas=2))
    assert files_in(tmp_path / "toy") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engines", "toy"]


def test_a_swap_that_fails_puts_the_old_model_back(toy, tmp_path, monkeypatch):
    model = export_to_repository(toy, tmp_path).path
    before = files_in(model)
    real = type(model).rename

    def rename(self, target):
        if self.name == "new":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return real(self, target)

    monkeypatch.setattr(type(model), "rename", rename)
    with pytest.raises(DeploymentError, match="Nothing was published"):
        export_to_repository(toy, tmp_path, TritonOptions(replicas=2))
    assert files_in(model) == before


def test_others_may_read_it(toy, tmp_path):
    before = os.umask(0o022)
    try:
        model = export_to_repository(toy, tmp_path).path
    finally:
        os.umask(before)
    assert stat.S_IMODE(model.stat().st_mode) == 0o755
    assert stat.S_IMODE((model / "config.pbtxt").stat().st_mode) == 0o644


def test_a_plan_of_several_engines_names_the_way_out(toy, tmp_path):
    with Deployment.edit(toy) as txn:
        (step,) = (name for name in Deployment.open(toy).steps if name.startswith("build"))
        txn.drop_step(step)
    build_to_deployment(toy, BuildOptions(backend="onnxruntime", placement="streams"))
    options = TritonOptions(kind="onnxruntime")
    command = "parnet-deploy build --backend onnxruntime --placement one"
    with pytest.raises(DeploymentError, match=rf"\(\d engines\), expected .* {command}"):
        export_to_repository(toy, tmp_path, options)
    assert export_to_repository(toy, tmp_path).report["kind"] == "python"


def test_simulated_engines_go_to_the_python_kind_only(toy, tmp_path):
    build_to_deployment(toy, BuildOptions(backend="fake", placement="one", gpus=(0,)))
    options = TritonOptions(kind="onnxruntime", plan="fake-fp32-one-gpus0")
    with pytest.raises(DeploymentError, match=r"fake-fp32-one-gpus0 \(simulated\)"):
        export_to_repository(toy, tmp_path, options)


@pytest.mark.parametrize("backend", ["openvino", "mnn", "ncnn", "mixed"])
def test_engines_of_other_libraries_go_to_the_python_kind_only(toy, tmp_path, backend):
    key = f"{backend}-fp32-one"
    add_plan(toy, key, backend)
    options = TritonOptions(kind="onnxruntime", plan=key)
    command = "parnet-deploy build --backend onnxruntime --placement one"
    refused = rf"{key} \(backend {backend}\), expected .* {command}; or export .* --kind python"
    with pytest.raises(DeploymentError, match=refused):
        export_to_repository(toy, tmp_path, options)
    found = export_to_repository(toy, tmp_path, TritonOptions(kind="onnxruntime")).report
    assert found["backend"] == "onnxruntime", "another plan of the deployment will do"
    made = export_to_repository(toy, tmp_path / "python", TritonOptions(plan=key))
    assert made.report["backend"] == backend
    config = (made.path / "config.pbtxt").read_text()
    extra = "openvino" if backend == "mixed" else backend
    assert f"# pip install 'parnet-deploy[{extra},images]'." in config
    assert "KIND_CPU" in config
