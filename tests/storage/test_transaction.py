"""Writing: nothing is published by accident, and nothing stale stays."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from parnet_deploy.deployment import Deployment, Transaction
from parnet_deploy.errors import CheckFailedError, DeploymentError
from parnet_deploy.input_size import InputSize
from parnet_deploy.storage import names
from tests.storage.states import NEW, OLD, SPEC, content, write_state


def add(txn: Transaction, step: str, *files: str, made_from: tuple[str, ...] | None = None) -> None:
    """Finish a step with these files and, for a build, a plan."""
    for name in files:
        txn.stage(name).write_bytes(step.encode())
    kind, _, variant = step.partition(":")
    plans = {variant or "plan": {"backend": "fake"}} if kind == "build" else None
    txn.finish_step(step, key="k", made_from=made_from, plans=plans)


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A deployment with every kind of step, two builds side by side."""
    path = tmp_path / "model"
    with Deployment.edit(path, create=True) as txn:
        txn.describe(spec=SPEC, labels=["a", "b", "c"], preprocessing={"crop": 1})
        txn.describe(input_size=InputSize.parse("32"))
        add(txn, "fuse", "fused", "reports/fuse")
        add(txn, "export", "onnx/a", "onnx/b")
        add(txn, "calibrate:cpu", "onnx-int8-cpu/a")
        add(txn, "build:fp32", "plans/fp32/a", made_from=("fuse", "export"))
        add(txn, "build:int8", "plans/int8/a")
        add(txn, "bench:fp32", "reports/bench", made_from=("build:fp32",))
    return path


def fail_inside(path: Path, error: BaseException) -> None:
    """Do a whole step in a transaction and raise at its end."""
    with Deployment.edit(path, create=True) as txn:
        txn.describe(spec=SPEC)
        add(txn, "fuse", "fused.safetensors")
        raise error


def tree(path: Path) -> set[str]:
    """All there is, directories included, but the lock."""
    return {p.relative_to(path).as_posix() for p in path.rglob("*")} - {names.LOCK}


def test_redone_fuse_drops_everything_made_from_it(chain: Path) -> None:
    with Deployment.edit(chain) as txn:
        add(txn, "fuse", "fused")
    found = Deployment.open(chain)
    assert set(found.steps) == {"fuse"}
    assert set(found.artifacts) == {"fused"}
    assert dict(found.plans) == {}
    assert (found.labels, found.preprocessing, found.input_size) == (None, None, None)
    assert found.spec == SPEC
    assert tree(chain) == {"deployment.json", "fused"}


def test_redone_export_drops_its_own_old_files_too(chain: Path) -> None:
    with Deployment.edit(chain) as txn:
        add(txn, "export", "onnx/a")
    found = Deployment.open(chain)
    assert set(found.artifacts) == {"fused", "reports/fuse", "onnx/a"}
    assert found.labels == ("a", "b", "c")
    assert found.input_size is None, "it belongs to the export"


def test_redone_calibration_keeps_what_was_not_made_from_it(chain: Path) -> None:
    with Deployment.edit(chain) as txn:
        add(txn, "calibrate:cpu", "onnx-int8-cpu/a")
    found = Deployment.open(chain)
    assert set(found.steps) == {"fuse", "export", "calibrate:cpu", "build:fp32", "bench:fp32"}
    assert set(found.plans) == {"fp32"}
    assert not (chain / "plans/int8").exists()
    assert found.input_size == InputSize.parse("32")


def test_redone_build_drops_its_bench_and_keeps_its_neighbour(chain: Path) -> None:
    with Deployment.edit(chain) as txn:
        add(txn, "build:fp32", "plans/fp32/b", made_from=("export",))
    found = Deployment.open(chain)
    assert "bench:fp32" not in found.steps
    assert set(found.plans) == {"fp32", "int8"}
    assert not (chain / "reports/bench").exists()
    assert not (chain / "plans/fp32/a").exists()


def test_drop_step_and_remove(chain: Path) -> None:
    with Deployment.edit(chain) as txn:
        txn.drop_step("build:int8")
        txn.remove("onnx/b")
        txn.stage("never").write_bytes(b"")
        txn.remove("never")
    found = Deployment.open(chain)
    assert "build:int8" not in found.steps
    assert not (chain / "onnx/b").exists()
    assert not found.is_current("export", "k"), "one of its files is gone"
    assert found.is_current("fuse", "k")
    assert found.verify()


def test_several_steps_in_one_transaction(chain: Path) -> None:
    with Deployment.edit(chain) as txn:
        add(txn, "fuse", "fused")
        add(txn, "export", "onnx/a")
    assert Deployment.open(chain).steps["export"]["made_from"] == {"fuse": "k"}


def test_changed_description_alone_is_published(chain: Path) -> None:
    with Deployment.edit(chain) as txn:
        txn.describe(labels=["x", "y", "z"])
    assert Deployment.open(chain).labels == ("x", "y", "z")
    assert Deployment.open(chain).preprocessing == {"crop": 1}


def test_nothing_done_nothing_written(old: Path) -> None:
    before = (old / names.MANIFEST).stat()
    with Deployment.edit(old):
        pass
    after = (old / names.MANIFEST).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    "error", [CheckFailedError("parity"), KeyboardInterrupt(), MemoryError(), OSError(2, "other")]
)
def test_exception_publishes_nothing(old: Path, error: BaseException) -> None:
    before = tree(old)
    with pytest.raises(type(error)) as caught:
        fail_inside(old, error)
    assert caught.value is error
    assert tree(old) == before
    assert content(Deployment.open(old)) == OLD


def test_full_disk_while_a_file_is_staged(old: Path) -> None:
    """As Python reports it, and as a library does that writes by itself."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    foreign = RuntimeError("Error while serializing: I/O error: No space left on device (os 28)")
    for error in (full, foreign):
        with pytest.raises(DeploymentError, match=r"No space.+intact.+Free some space") as seen:
            fail_inside(old, error)
        assert seen.value.__cause__ is error
        assert content(Deployment.open(old)) == OLD


def test_full_disk_while_a_file_is_copied(old: Path, tmp_path: Path) -> None:
    """Such an error names the source first; what cannot be written is the second file."""
    full, source = (errno.ENOSPC, os.strerror(errno.ENOSPC)), str(tmp_path / "engine.onnx")
    with pytest.raises(DeploymentError, match=f"cannot write {old / 'x'}: .+intact"):
        fail_inside(old, OSError(*full, source, None, str(old / "x")))
    assert content(Deployment.open(old)) == OLD
    with pytest.raises(OSError, match="No space") as seen:
        fail_inside(old, OSError(*full, str(old / "x"), None, source))
    assert not isinstance(seen.value, DeploymentError)


def test_permission_error_of_the_callers_own_file_is_not_ours(old: Path, tmp_path: Path) -> None:
    with pytest.raises(PermissionError), Deployment.edit(old):
        raise PermissionError(errno.EACCES, "denied", str(tmp_path / "model.pt"))
    with pytest.raises(DeploymentError, match="Make the directory writable"), Deployment.edit(old):
        raise PermissionError(errno.EACCES, "denied", str(old / "x"))


def test_failed_creation_leaves_no_deployment(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_inside(tmp_path / "a", ZeroDivisionError())
    assert tree(tmp_path / "a") == set()
    write_state(tmp_path / "a", NEW)
    assert content(Deployment.open(tmp_path / "a")) == NEW


def test_staging_of_a_killed_writer_is_thrown_away(old: Path) -> None:
    dead = old / (names.STAGING_PREFIX + "0" * 16)
    (dead / "onnx").mkdir(parents=True)
    (dead / "onnx" / "x").write_bytes(b"half")
    assert content(Deployment.open(old)) == OLD
    with Deployment.edit(old):
        assert not dead.exists()


def test_foreign_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_bytes(b"")
    with (
        pytest.raises(DeploymentError, match=r"got a directory with thesis\.tex.*Choose another"),
        Deployment.edit(tmp_path, create=True),
    ):
        pass
    assert tree(tmp_path) == {"thesis.tex"}


def test_a_file_where_the_directory_must_go(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"")
    with (
        pytest.raises(DeploymentError, match="cannot write"),
        Deployment.edit(tmp_path / "model", create=True),
    ):
        pass


@pytest.mark.parametrize("foreign", ["plans", "onnx/deep/mine"])
def test_foreign_file_in_the_way_is_refused_before_the_commit_point(
    tmp_path: Path, foreign: str
) -> None:
    path = tmp_path / "model"
    before = {"fused.safetensors": b"old"}
    write_state(path, before)
    (path / foreign).parent.mkdir(parents=True, exist_ok=True)
    (path / foreign).write_bytes(b"precious")
    with pytest.raises(DeploymentError, match=r"expected nothing foreign there\. Move it away"):
        write_state(path, NEW)
    assert (path / foreign).read_bytes() == b"precious"
    assert content(Deployment.open(path)) == before


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "a/.b", "", "deployment.json", "a b", "x."])
def test_bad_artifact_name_is_refused(old: Path, name: str) -> None:
    with pytest.raises(DeploymentError, match=r"artifact .+Rename it\."), Deployment.edit(old) as t:
        t.stage(name)


def test_wrong_number_of_labels_is_refused_and_nothing_changed(old: Path) -> None:
    with (
        pytest.raises(DeploymentError, match=r"labels: got 2, expected one for each of 3.+Nothing"),
        Deployment.edit(old) as txn,
    ):
        txn.describe(labels=["a", "b"])
    assert Deployment.open(old).labels == ("a", "b", "c")


def test_mistakes_of_the_calling_code_are_bugs(old: Path) -> None:
    """Each keeps its traceback (no DeploymentError) and publishes nothing."""

    def wrong_order(txn: Transaction) -> None:
        add(txn, "export", "onnx/a")
        add(txn, "fuse", "fused")

    def never_finished(txn: Transaction) -> None:
        txn.stage("x").write_bytes(b"")

    def never_written(txn: Transaction) -> None:
        txn.stage("x")
        txn.finish_step("fuse", key="k")

    def never_announced(txn: Transaction) -> None:
        txn.stage("x").write_bytes(b"")
        (txn.stage("x").parent / "x.data").write_bytes(b"")
        txn.finish_step("fuse", key="k")

    def of_another_step(txn: Transaction) -> None:
        add(txn, "export", "fused.safetensors")

    def unknown_source(txn: Transaction) -> None:
        add(txn, "export", "onnx/a", made_from=("calibrate",))

    cases = {
        wrong_order: "wrong order",
        never_finished: "no step was finished for them",
        never_written: "not written as a plain file",
        never_announced: r"not staged: \['x.data'\]",
        of_another_step: "belongs to step fuse",
        unknown_source: "are no earlier steps",
        lambda txn: txn.finish_step("dance", key="k"): "expected a kind of",
        lambda txn: txn.remove("nothing"): "has none of this name",
        lambda txn: txn.drop_step("export"): "has none of this name",
    }
    for mistake, message in cases.items():
        with pytest.raises(ValueError, match=message), Deployment.edit(old) as txn:
            mistake(txn)
        assert content(Deployment.open(old)) == OLD
    with pytest.raises(ValueError, match="use it in a with block"):
        Deployment.edit(old).stage("x")
    with (
        pytest.raises(ValueError, match="needs its network"),
        Deployment.edit(old.parent / "new", create=True) as txn,
    ):
        add(txn, "fuse", "fused")
