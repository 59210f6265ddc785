"""What a signature covers, its file, and that it goes when what it covers changes."""

from __future__ import annotations

import errno
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.deployment import Deployment, Transaction, step_key
from parnet_deploy.errors import DeploymentError, DeploymentUntrustedError
from parnet_deploy.input_size import InputSize
from parnet_deploy.storage import names
from parnet_deploy.storage.document import seal
from parnet_deploy.storage.journal import Journal
from parnet_deploy.storage.manifest import load_manifest
from parnet_deploy.storage.signature import Signature, load_signature
from parnet_deploy.storage.statement import statement
from tests.storage.states import SPEC
from tests.storage.test_journal import FaultyDisk

SIGNATURE = Signature(key="0" * 32, value=bytes(range(64)))


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """A deployment with a signature; of what, nobody asks here."""
    path = tmp_path / "model"
    with Deployment.edit(path, create=True) as txn:
        txn.describe(spec=SPEC, labels=["a", "b", "c"], input_size=InputSize.parse("32"))
        add(txn, "fuse", "fused.safetensors", "reports/fuse.json")
        add(txn, "build:cpu", "plans/cpu/all.onnx")
        add(txn, "bench", "reports/bench.json")
    with Deployment.edit(path) as txn:
        txn.attach(SIGNATURE)
    return path


def add(txn: Transaction, step: str, *files: str, key: str = "k") -> None:
    """Finish a step with these files."""
    for name in files:
        txn.stage(name).write_bytes(step.encode())
    plans = {"cpu": {"backend": "fake"}} if step == "build:cpu" else None
    txn.finish_step(step, key=step_key(key=key), plans=plans)


def test_file_round_trip(signed: Path) -> None:
    assert load_signature(signed) == SIGNATURE
    assert Signature.parse(SIGNATURE.render(), "x") == SIGNATURE
    assert Deployment.open(signed).verify().foreign == (), "it is the package's own"


@given(at=st.floats(0, 1), flip=st.integers(1, 255))
def test_any_flipped_byte_of_the_file_is_refused(at: float, flip: int) -> None:
    raw = bytearray(SIGNATURE.render())
    raw[round(at * (len(raw) - 1))] ^= flip
    with pytest.raises(DeploymentUntrustedError, match=r"^x: got one that was edited"):
        Signature.parse(bytes(raw), "x")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("algorithm", "none"),
        ("algorithm", None),
        ("key", "0" * 31),
        ("key", "0" * 33),
        ("key", "G" * 32),
        ("key", 3),
        ("signature", ""),
        ("signature", "00" * 63),
        ("signature", "0" * 128 + "\n"),
        ("signature", None),
        ("more", 1),
        ("key", ...),
    ],
)
def test_well_sealed_nonsense_is_refused(field: str, value: object) -> None:
    data = json.loads(SIGNATURE.render())
    del data["sha256"]
    if value is ...:
        del data[field]
    else:
        data[field] = value
    with pytest.raises(DeploymentUntrustedError, match="expected a signature by an ed25519 key"):
        Signature.parse(seal(data), "x")


def test_a_file_that_is_too_long_a_link_or_a_directory_is_refused(signed: Path) -> None:
    path = signed / names.SIGNATURE
    path.write_bytes(path.read_bytes() + b" " * 8192)
    with pytest.raises(DeploymentUntrustedError, match="edited, damaged or cut off"):
        load_signature(signed)
    path.rename(signed.parent / "outside")
    path.symlink_to(signed.parent / "outside")
    with pytest.raises(DeploymentUntrustedError, match="symbolic link"):
        load_signature(signed)
    path.unlink()
    path.mkdir()
    with pytest.raises(DeploymentUntrustedError, match="Is a directory"):
        load_signature(signed)


def change_labels(txn: Transaction) -> None:
    txn.describe(labels=["x", "b", "c"])


def change_plan(txn: Transaction) -> None:
    add(txn, "build:cpu", "plans/cpu/all.onnx", key="another")


def add_plan(txn: Transaction) -> None:
    add(txn, "build:gpu", "plans/gpu/all.plan")


def drop_file(txn: Transaction) -> None:
    txn.remove("plans/cpu/all.onnx")


def drop_plan(txn: Transaction) -> None:
    txn.drop_step("build:cpu")


@pytest.mark.parametrize("change", [change_labels, change_plan, add_plan, drop_file, drop_plan])
def test_what_answers_otherwise_is_unsigned(
    signed: Path, change: Callable[[Transaction], None]
) -> None:
    before = Deployment.open(signed).statement
    with Deployment.edit(signed) as txn:
        change(txn)
    assert Deployment.open(signed).statement != before
    assert not (signed / names.SIGNATURE).exists()
    assert load_signature(signed) is None


def bench_again(txn: Transaction) -> None:
    add(txn, "bench", "reports/bench.json", key="another")


def verify(txn: Transaction) -> None:
    add(txn, "verify", "reports/verify.json")


def drop_bench(txn: Transaction) -> None:
    txn.drop_step("bench")


@pytest.mark.parametrize("change", [bench_again, verify, drop_bench, lambda txn: None])
def test_reports_may_come_later(signed: Path, change: Callable[[Transaction], None]) -> None:
    before = Deployment.open(signed)
    with Deployment.edit(signed) as txn:
        change(txn)
    after = Deployment.open(signed)
    assert after.statement == before.statement
    assert after.read_signature() == SIGNATURE
    assert after.uncovered == ()


def test_a_change_that_fails_leaves_the_signature(signed: Path) -> None:
    def fail(txn: Transaction) -> None:
        change_labels(txn)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Deployment.edit(signed) as txn:
        fail(txn)
    assert load_signature(signed) == SIGNATURE


def test_a_commit_that_dies_never_leaves_the_new_with_the_old_signature(
    signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(root: Path, journal: Journal) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("parnet_deploy.storage.journal._complete", die)
        with pytest.raises(KeyboardInterrupt), Deployment.edit(signed) as txn:
            change_labels(txn)
    assert (signed / names.JOURNAL).exists(), "died right after the commit point"
    assert Deployment.open(signed).labels == ("x", "b", "c")
    assert load_signature(signed) is None


def test_a_disk_that_fails_at_any_call_leaves_old_and_signed_or_new_and_unsigned(
    signed: Path,
) -> None:
    outcomes: Counter[tuple[str, bool]] = Counter()
    for failing in itertools.count(1):
        path = signed.parent / f"at{failing}"
        shutil.copytree(signed, path)
        with pytest.MonkeyPatch.context() as patch:
            disk = FaultyDisk(patch, failing, errno.ENOSPC)
            with suppress(DeploymentError), Deployment.edit(path) as txn:
                change_labels(txn)
        labels = Deployment.open(path).labels or ()
        outcomes[labels[0], load_signature(path) is not None] += 1
        if disk.calls < failing:
            break
    assert set(outcomes) == {("a", True), ("x", False)}
    assert min(outcomes.values()) > 3


def test_signing_what_is_only_staged_is_a_bug(signed: Path) -> None:
    def sign_too_early(txn: Transaction) -> None:
        change_labels(txn)
        txn.attach(SIGNATURE)

    with pytest.raises(ValueError, match="publish first"), Deployment.edit(signed) as txn:
        sign_too_early(txn)


FIELDS: dict[str, Any] = {
    "spec": replace(SPEC, num_classes=4),
    "input_size": InputSize.parse("64"),
    "preprocessing": {"mean": [0.5]},
    "labels": ("a", "b", "d"),
    "source": {"path": "other.pt"},
    "steps": {},
    "plans": {},
    "artifacts": {},
}


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_that_shapes_an_answer_is_in_the_statement(signed: Path, field: str) -> None:
    manifest = load_manifest(signed)
    assert statement(replace(manifest, **{field: FIELDS[field]})) != statement(manifest)


@pytest.mark.parametrize("field", ["written", "writer", "digest"])
def test_when_and_by_what_it_was_written_is_not(signed: Path, field: str) -> None:
    manifest = load_manifest(signed)
    assert statement(replace(manifest, **{field: "another"})) == statement(manifest)


def test_no_field_of_the_manifest_is_forgotten(signed: Path) -> None:
    """A field that is added later must be put on one of the two sides."""
    assert set(vars(load_manifest(signed))) == {*FIELDS, "written", "writer", "digest"}


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("plans/cpu/all.onnx", "sha256"),
        ("plans/cpu/all.onnx", "bytes"),
        ("reports/fuse.json", "sha256"),
    ],
)
def test_every_file_that_is_covered_is_by_its_hash(signed: Path, name: str, field: str) -> None:
    manifest = load_manifest(signed)
    changed = {**manifest.artifacts[name], field: "1" * 64 if field == "sha256" else 10**6}
    other = replace(manifest, artifacts={**manifest.artifacts, name: changed})
    assert statement(other) != statement(manifest)


@pytest.mark.parametrize("step", ["bench", "verify", "bench:x"])
def test_a_file_that_hides_behind_a_report_is_found(signed: Path, step: str) -> None:
    """Moving a file to a step that is not covered changes the statement; adding one is seen."""
    with Deployment.edit(signed) as txn:
        add(txn, step, "plans/cpu/canary.npz")
    found = Deployment.open(signed)
    assert found.uncovered == ("plans/cpu/canary.npz",)
    assert found.read_signature() == SIGNATURE, "for the statement is the same"
    manifest = load_manifest(signed)
    moved = {**manifest.artifacts["plans/cpu/all.onnx"], "step": step}
    other = replace(manifest, artifacts={**manifest.artifacts, "plans/cpu/all.onnx": moved})
    assert statement(other) != statement(manifest)
