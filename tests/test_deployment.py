"""The deployment directory as its users see it: what is read is what was written, or an error."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parnet_deploy.deployment import Deployment, step_key
from parnet_deploy.errors import (
    DeploymentChangedError,
    DeploymentCorruptError,
    DeploymentError,
    DeploymentNotFoundError,
)
from parnet_deploy.export.trained import training_form
from parnet_deploy.input_size import InputSize
from parnet_deploy.storage.document import seal
from tests.storage.states import SPEC

WEIGHTS, STEM, PLAN = "fused.safetensors", "onnx/stem0.onnx", "plans/one-cpu/all.onnx"
SIZE = InputSize.parse("32:64")


def write_all(path: Path) -> None:
    """Write a deployment with every step and every field."""
    with Deployment.edit(path, create=True) as txn:
        txn.describe(
            spec=SPEC,
            source={"file": "model.pt", "sha256": "0" * 64, "weights": "ema"},
            preprocessing={"mean": [0.485, 0.456, 0.406]},
            labels=["cat", "dog", "émeu"],
        )
        txn.stage(WEIGHTS).write_bytes(bytes(range(256)))
        txn.stage("reports/fuse.json").write_bytes(b"{}")
        txn.finish_step("fuse", key=step_key(a=1), options={"weights": "auto"})
        txn.describe(input_size=SIZE)
        txn.stage(STEM).write_bytes(b"stem")
        txn.finish_step("export", key=step_key(b=1), versions={"onnx": "1.23.2"})
        txn.stage(PLAN).write_bytes(b"")
        plan = {"backend": "onnxruntime", "placement": "one", "median_ms": 1.25, "built": "now"}
        txn.finish_step("build:one", key=step_key(c=1), plans={"one-cpu": plan})


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A deployment with every step and every field."""
    path = tmp_path / "engines" / "parnet-s"
    write_all(path)
    return path


def test_round_trip(full: Path) -> None:
    found = Deployment.open(full)
    assert (found.path, found.name) == (full, "parnet-s")
    assert (found.spec, found.input_size) == (SPEC, SIZE)
    assert found.source == {"file": "model.pt", "sha256": "0" * 64, "weights": "ema"}
    assert found.preprocessing == {"mean": [0.485, 0.456, 0.406]}
    assert found.labels == ("cat", "dog", "émeu")
    assert list(found.steps) == ["build:one", "export", "fuse"]
    assert found.steps["export"]["made_from"] == {"fuse": step_key(a=1)}
    assert found.steps["fuse"]["files"] == [WEIGHTS, "reports/fuse.json"]
    assert found.plans["one-cpu"]["median_ms"] == 1.25
    assert found.plans["one-cpu"]["step"] == "build:one"
    assert {name: record["step"] for name, record in found.artifacts.items()} == {
        WEIGHTS: "fuse",
        "reports/fuse.json": "fuse",
        STEM: "export",
        PLAN: "build:one",
    }
    assert found.read_bytes(WEIGHTS) == bytes(range(256))
    assert found.read_bytes(PLAN) == b""
    assert found.verified_path(STEM) == full / STEM
    assert found.verify()
    assert found.verify().foreign == ()
    assert Deployment.open(str(full)).digest == found.digest


def test_copied_whole_it_works_elsewhere(full: Path, tmp_path: Path) -> None:
    before = Deployment.open(full)
    elsewhere = shutil.copytree(full, tmp_path / "elsewhere" / "renamed")
    shutil.rmtree(full)
    after = Deployment.open(elsewhere)
    assert after.name == "renamed"
    assert after.digest == before.digest
    assert after.verify()
    assert str(tmp_path) not in (elsewhere / "deployment.json").read_text(encoding="ascii")


def test_is_current_needs_the_key_and_unchanged_files(full: Path) -> None:
    found = Deployment.open(full)
    assert found.is_current("export", step_key(b=1))
    assert not found.is_current("export", step_key(b=2))
    assert not found.is_current("calibrate", step_key(b=1))
    (full / STEM).write_bytes(b"Stem")
    assert not found.is_current("export", step_key(b=1))
    assert found.is_current("fuse", step_key(a=1))
    (full / "reports/fuse.json").unlink()
    assert not found.is_current("fuse", step_key(a=1))


def test_verify_lists_missing_changed_and_foreign(full: Path) -> None:
    (full / WEIGHTS).unlink()
    (full / STEM).write_bytes(b"steM")
    (full / "notes.txt").write_bytes(b"")
    (full / ".staging-0123456789abcdef").mkdir()
    found = Deployment.open(full).verify()
    assert not found
    assert (found.missing, found.changed, found.foreign) == ((WEIGHTS,), (STEM,), ("notes.txt",))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One deployment for all examples of a property; each example puts it back."""
    path = tmp_path_factory.mktemp("property") / "model"
    write_all(path)
    return path


def read_everything(path: Path) -> list[bytes]:
    """What a consumer does."""
    found = Deployment.open(path)
    return [found.read_bytes(name) for name in found.artifacts]


def check_refused(path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    """Damage one file; reading, hashing and verifying must all refuse it."""
    intact = (path / name).read_bytes()
    try:
        (path / name).write_bytes(damage(intact))
        with pytest.raises(DeploymentError, match=r"^(artifact|manifest) .+: .+ expected .+\.$"):
            read_everything(path)
        if name != "deployment.json":
            found = Deployment.open(path)
            assert found.verify().changed == (name,)
            with pytest.raises(DeploymentCorruptError):
                found.verified_path(name)
    finally:
        (path / name).write_bytes(intact)
    assert read_everything(path)


FILES = ["deployment.json", WEIGHTS, STEM, "reports/fuse.json"]


@settings(max_examples=200)
@given(name=st.sampled_from(FILES), where=st.floats(0, 1), flip=st.integers(1, 255))
def test_any_flipped_byte_is_refused(shared: Path, name: str, where: float, flip: int) -> None:
    def damage(raw: bytes) -> bytes:
        at = round(where * (len(raw) - 1))
        return raw[:at] + bytes([raw[at] ^ flip]) + raw[at + 1 :]

    check_refused(shared, name, damage)


@given(name=st.sampled_from(FILES), keep=st.floats(0, 1, exclude_max=True))
def test_any_truncation_is_refused(shared: Path, name: str, keep: float) -> None:
    check_refused(shared, name, lambda raw: raw[: int(keep * len(raw))])


@given(name=st.sampled_from([*FILES, PLAN]), tail=st.binary(min_size=1))
def test_anything_appended_is_refused(shared: Path, name: str, tail: bytes) -> None:
    check_refused(shared, name, lambda raw: raw + tail)


def change(data: dict[str, Any], path: str, value: object) -> None:
    """Set a nested field, "|" between keys; delete it if the value is ``...``."""
    *parents, last = path.split("|")
    for key in parents:
        data = data[key]
    if value is ...:
        del data[last]
    else:
        data[last] = value


ENTRY = {"sha256": "0" * 64, "bytes": 1, "step": "fuse"}
CHOICE = {"activation": "silu", "decided_by": "weights", "evidence": "means"}


def reseal(root: Path, field: str, value: object) -> None:
    """Change the manifest and seal it again, as who can write the directory can."""
    path = root / "deployment.json"
    data = json.loads(path.read_bytes())
    del data["sha256"]
    change(data, field, value)
    path.write_bytes(seal(data))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("artifacts|../outside", ENTRY, "artifact '../outside': expected a relative path"),
        ("artifacts|/etc/passwd", ENTRY, "artifact '/etc/passwd': expected a relative path"),
        ("artifacts|a/../../b", ENTRY, "expected a relative path"),
        ("artifacts|a\\b", ENTRY, "expected a relative path"),
        ("artifacts|C:evil", ENTRY, "expected a relative path"),
        ("artifacts|", ENTRY, "expected a relative path"),
        ("artifacts|.lock", ENTRY, "expected a relative path"),
        ("artifacts|a\n", ENTRY, "expected a relative path"),
        ("artifacts|deployment.json", ENTRY, "it is the manifest"),
        ("artifacts|FUSED.safetensors", ENTRY, "got both, expected one"),
        ("artifacts|onnx", ENTRY, "got both, expected one"),
        ("artifacts|x" + "y" * 200, ENTRY, "longer than 200 characters"),
        (f"artifacts|{STEM}|bytes", "4", "bytes: got '4', expected int"),
        (f"artifacts|{STEM}|bytes", True, "bytes: got True, expected int"),
        (f"artifacts|{STEM}|bytes", -1, "expected a sha256 and a size"),
        (f"artifacts|{STEM}|bytes", 10**30, "expected a sha256 and a size"),
        (f"artifacts|{STEM}|sha256", "abc", "expected a sha256 and a size"),
        (f"artifacts|{STEM}|step", "verify", "got the step 'verify', which is unknown"),
        (f"artifacts|{STEM}", [], "got list, expected an object"),
        (f"artifacts|{STEM}|mode", 7, "got the fields"),
        ("artifacts", [], "artifacts: got [], expected dict"),
        ("spec|planes", [4, 8], "network: got planes"),
        ("spec|planes", ["4", 8, 16, 32], "network description: cannot read it"),
        ("spec|activation", "tanh", "activation: got 'tanh', expected silu or relu"),
        ("spec|num_blocks", [10**6, 2, 2, 1], "at most 4096 together"),
        ("spec|planes", [4, 8, 10**12, 32], "spec: got a width of 1000000000000, expected at most"),
        ("spec|num_classes", 10**12, "spec: got a width of 1000000000000, expected at most"),
        ("spec|in_channels", 10**12, "spec: got a width of 1000000000000, expected at most"),
        ("spec|more", 1, "network description: cannot read it"),
        ("spec", None, "spec: got None, expected dict"),
        ("input_size|low", [33, 32], "input size: got 33x32, expected multiples of 32"),
        ("input_size|low", [96, 96], "input size: got (96, 96) to (64, 64)"),
        ("input_size|high", [32, 32 * 10**9], "expected sides of at most 1000000"),
        ("input_size|low", [32], "input size: cannot read it"),
        ("input_size|low", "32", "input size: cannot read it"),
        ("labels", ["a"], "labels: got 1, expected one for each of 3"),
        ("labels", ["a", "b", 3], "labels: got something else, expected strings"),
        ("steps|dance", {}, "step 'dance': expected one of fuse, export"),
        ("steps|fuse|made_from", {"build": "0"}, "expected earlier steps"),
        ("steps|fuse|files", [STEM], "another step's"),
        ("steps|fuse|files", [[]], "another step's"),
        ("steps|fuse|key", 3, "key: got 3, expected str"),
        ("plans|one-cpu|step", "build:two", "expected an object with its step"),
        ("plans|one-cpu|step", [], "expected an object with its step"),
        ("plans|one-cpu|backend", [], "plan one-cpu backend: got [], expected text"),
        ("plans|one-cpu|placement", True, "plan one-cpu placement: got True, expected text"),
        ("plans|one-cpu|built", None, "plan one-cpu built: got None, expected text"),
        ("plans|one-cpu|precision", 32, "plan one-cpu precision: got 32, expected text"),
        ("plans|one-cpu|threads", "4", "plan one-cpu threads: got '4', expected"),
        ("plans|one-cpu|devices", None, "plan one-cpu devices: got None, expected"),
        ("plans|one-cpu|devices", [True], "plan one-cpu devices: got [True], expected"),
        ("plans|one-cpu|median_ms", "", "plan one-cpu median_ms: got '', expected"),
        ("plans|one-cpu|median_ms", 10**400, "expected null or a number from 0 to 1e+09"),
        ("plans|../x", {"step": "fuse"}, "expected letters, digits"),
        ("source|path", 1, "source path: got 1, expected text"),
        ("source|sha256", None, "source sha256: got None, expected text"),
        ("source|layout", [], "source layout: got [], expected text"),
        ("source|weights", {}, "source weights: got {}, expected text"),
        ("source|parameters", "1", "source parameters: got '1', expected a whole number"),
        ("source|training_args", [], "source training_args: got [], expected an object"),
        ("source|notes", [1], "source notes: got [1], expected a list of texts"),
        ("source|activation", "silu", "source activation: got 'silu', expected an object"),
        ("source|activation", {"activation": "silu"}, "decided_by: got nothing, expected weights"),
        ("source|activation", {**CHOICE, "decided_by": []}, "decided_by: got [], expected weights"),
        ("source|activation", {**CHOICE, "evidence": 1}, "evidence: got 1, expected text"),
        ("written", ..., "got the fields"),
        ("surprise", 1, "got the fields"),
    ],
)
def test_hostile_manifest_with_a_correct_seal_is_refused(
    full: Path, field: str, value: object, message: str
) -> None:
    reseal(full, field, value)
    with pytest.raises(DeploymentCorruptError) as caught:
        Deployment.open(full)
    assert str(caught.value).startswith(f"manifest {full / 'deployment.json'}: ")
    assert message in str(caught.value)
    assert str(caught.value).endswith("Build the deployment again: parnet-deploy fuse model.pt.")


def test_more_streams_than_any_network_has_are_refused(full: Path) -> None:
    spec = {**SPEC.to_json(), "planes": [8] * 2000, "num_blocks": [1] * 2000}
    reseal(full, "spec", spec)
    with pytest.raises(DeploymentCorruptError, match="got 1999 streams, expected at most 16"):
        Deployment.open(full)


@pytest.mark.parametrize("size", [10**12, 1 << 62])
def test_a_claimed_size_takes_no_memory(full: Path, size: int) -> None:
    reseal(full, f"artifacts|{STEM}|bytes", size)
    found = Deployment.open(full)
    with pytest.raises(DeploymentCorruptError, match=f"got 4 bytes, expected {size} bytes"):
        found.read_bytes(STEM)
    assert found.verify().changed == (STEM,)


@pytest.mark.parametrize("choice", [{}, {"weights": "best"}, {"weights": "auto"}])
def test_no_training_form_without_the_choice_of_weights(
    full: Path, monkeypatch: pytest.MonkeyPatch, choice: dict[str, str]
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("loaded with an unknown choice of weights")

    monkeypatch.setattr("parnet_deploy.export.trained.load_checkpoint", load)
    checkpoint = full.parent / "model.pt"
    checkpoint.write_bytes(b"")
    sha256 = hashlib.sha256(b"").hexdigest()
    reseal(full, "source", {"path": str(checkpoint), "sha256": sha256, **choice})
    assert training_form(Deployment.open(full)) is None


@pytest.mark.parametrize("version", [2, "1", 1.0, True, None])
def test_unknown_schema_version_is_refused(full: Path, version: object) -> None:
    path = full / "deployment.json"
    data = json.loads(path.read_bytes())
    path.write_bytes(seal({**data, "schema_version": version}))
    with pytest.raises(DeploymentError, match=r"got schema version .+, expected 1\. Use the"):
        Deployment.open(full)


def test_manifest_larger_than_any_is_refused_unread(full: Path) -> None:
    with (full / "deployment.json").open("r+b") as file:
        file.truncate(1 << 30)  # sparse
    with pytest.raises(DeploymentCorruptError, match=r"got more than \d+ bytes"):
        Deployment.open(full)


def test_nothing_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / "none" / "deeper"):
        with pytest.raises(DeploymentNotFoundError, match=r"got no deployment\.json there.*Run:"):
            Deployment.open(path)
    for name in ("\0", "x" * 5000):
        with pytest.raises(DeploymentError, match="cannot read it"):
            Deployment.open(name)
    with pytest.raises(DeploymentNotFoundError), Deployment.edit(tmp_path / "none"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_unknown_artifact(full: Path) -> None:
    with pytest.raises(DeploymentError, match=r"got no artifact onnx/x\.onnx.*Run: parnet-deploy"):
        Deployment.open(full).read_bytes("onnx/x.onnx")


@pytest.mark.parametrize("name", [WEIGHTS, STEM])
def test_link_that_leads_outside_is_refused(full: Path, tmp_path: Path, name: str) -> None:
    """With the very same content: it would not travel with the directory."""
    outside = tmp_path / "outside"
    (full / name).rename(outside)
    (full / name).symlink_to(outside)
    for read in (Deployment.open(full).read_bytes, Deployment.open(full).verified_path):
        with pytest.raises(DeploymentCorruptError, match="symbolic link that leads outside"):
            read(name)


def test_directory_that_leads_outside_is_refused(full: Path, tmp_path: Path) -> None:
    (full / "onnx").rename(tmp_path / "outside")
    (full / "onnx").symlink_to(tmp_path / "outside")
    with pytest.raises(DeploymentCorruptError, match="symbolic link that leads outside"):
        Deployment.open(full).read_bytes(STEM)
    with pytest.raises(DeploymentCorruptError, match="leads outside"):
        write_all(full)
    assert (tmp_path / "outside" / "stem0.onnx").read_bytes() == b"stem"


def test_manifest_that_leads_outside_is_refused(full: Path, tmp_path: Path) -> None:
    (full / "deployment.json").rename(tmp_path / "outside.json")
    (full / "deployment.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(DeploymentCorruptError, match="symbolic link that leads outside"):
        Deployment.open(full)


def test_loop_of_links_is_refused(full: Path) -> None:
    (full / STEM).unlink()
    (full / STEM).symlink_to(full / STEM)
    with pytest.raises(DeploymentCorruptError, match="expected"):
        Deployment.open(full).read_bytes(STEM)


def test_old_snapshot_is_never_mixed_with_the_new(full: Path) -> None:
    before = Deployment.open(full)
    with Deployment.edit(full) as txn:
        txn.stage(PLAN).write_bytes(b"another")
        txn.finish_step("build:one", key=step_key(c=2))
    assert before.read_bytes(WEIGHTS) == bytes(range(256)), "the same in both"
    with pytest.raises(DeploymentChangedError, match=r"was rewritten at .+Open the deployment"):
        before.read_bytes(PLAN)
    assert Deployment.open(full).read_bytes(PLAN) == b"another"


def test_read_starts_again_when_it_was_rewritten_meanwhile(full: Path) -> None:
    seen: list[str] = []

    def load(found: Deployment) -> bytes:
        seen.append(found.digest)
        if len(seen) == 1:
            with Deployment.edit(full) as txn:
                txn.stage(PLAN).write_bytes(b"another")
                txn.finish_step("build:one", key=step_key(c=2))
        return found.read_bytes(PLAN)

    assert Deployment.read(full, load) == b"another"
    assert len(set(seen)) == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
).filter(lambda value: "inf" not in repr(value))
identifiers = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


@given(
    parts=st.dictionaries(identifiers, json_values, min_size=1), other=json_values, data=st.data()
)
def test_every_field_changes_the_step_key(
    parts: dict[str, Any], other: Any, data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from(sorted(parts)))
    key = step_key(**parts)
    assert key == step_key(**dict(reversed(parts.items()))), "the order does not matter"
    less = {name: value for name, value in parts.items() if name != field}
    assert step_key(**less) != key
    assert step_key(**less, **{field + "_": parts[field]}) != key
    assert step_key(**{**parts, field: [parts[field]]}) != key
    if json.dumps(other, sort_keys=True) != json.dumps(parts[field], sort_keys=True):
        assert step_key(**{**parts, field: other}) != key


def test_step_key_takes_plain_json_only() -> None:
    assert step_key(a=1) != step_key(a=True) != step_key(a="1")
    for value in ({1: "a"}, {1, 2}, b"a", Path("a")):
        with pytest.raises(TypeError, match=r"data\.a: got"):
            step_key(a=value)
    with pytest.raises(ValueError, match="expected a finite number"):
        step_key(a=[float("nan")])


@pytest.mark.parametrize("name", ["deployment.json", STEM])
def test_a_disk_that_fails_while_it_is_read(
    full: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.fdopen

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        def fileno(self) -> int:
            return self.handle

    def fdopen(handle: int, mode: str) -> Any:
        if os.readlink(f"/proc/self/fd/{handle}") != str(full / name):
            return opened(handle, mode)
        broken = Broken()
        broken.handle = handle
        return broken

    monkeypatch.setattr(os, "fdopen", fdopen)
    with pytest.raises(DeploymentError, match=rf"{name}.*Input/output error"):
        Deployment.open(full).read_bytes(STEM)
    if name == STEM:
        assert Deployment.open(full).verify().changed == (STEM,)
        with pytest.raises(DeploymentCorruptError, match="Input/output error"):
            Deployment.open(full).verified_path(STEM)


@pytest.mark.parametrize("name", ["deployment.json", STEM])
def test_a_pipe_in_the_place_of_a_file_is_refused(full: Path, name: str) -> None:
    (full / name).unlink()
    os.mkfifo(full / name)
    with pytest.raises(DeploymentError, match=rf"{name}.*not a plain file"):
        Deployment.open(full).read_bytes(STEM)
