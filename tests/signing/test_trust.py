"""What no trusted key has signed is not run: by none of the ways there are to run it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parnet_deploy import Runtime
from parnet_deploy.bench.bench_step import bench_to_deployment
from parnet_deploy.bench.timeline_step import trace_to_deployment
from parnet_deploy.builder.verify_step import verify_to_deployment
from parnet_deploy.deployment import Deployment, step_key
from parnet_deploy.errors import (
    DeploymentChangedError,
    DeploymentError,
    DeploymentUntrustedError,
    DeviceLostError,
    SigningError,
)
from parnet_deploy.runtime.fake import backend as fake
from parnet_deploy.runtime.fake.options import FakeOptions, FaultPlan
from parnet_deploy.serve.model.options import ModelOptions
from parnet_deploy.serve.model.served_model import ServedModel
from parnet_deploy.serve.ray.need import find_need
from parnet_deploy.serve.ray.open import open_service
from parnet_deploy.serve.ray.options import ScaleOptions
from parnet_deploy.serve.ray.settings import ModelSettings, ReplicaSettings
from parnet_deploy.serve.server.deployments import DeploymentServer
from parnet_deploy.serve.server.options import ServerOptions
from parnet_deploy.signing.sign import sign_deployment
from parnet_deploy.signing.trust import VARIABLE, Trust, find_trust, open_trusted, read_trust
from parnet_deploy.storage.document import seal
from parnet_deploy.triton.export import export_to_repository
from tests.runtime.test_failover import until_lost
from tests.runtime.test_session import EXPECTED, ONE, X, canary_of
from tests.runtime.test_session import FAKE as THREE
from tests.runtime.test_session import publish as publish_plans
from tests.serve.service_toys import SPEC, publish
from tests.signing.keys import Pair, make_pair

ROOT = Path(__file__).parents[2]


def test_signed_by_a_trusted_key_it_opens(signed: Path, pair: Pair, stranger: Pair) -> None:
    for trusted in ([pair.public], [str(pair.public)], [stranger.public, pair.public]):
        with Runtime.open(signed, trusted_keys=trusted) as runtime:
            assert runtime.spec == SPEC
    assert read_trust([pair.public]).check(Deployment.open(signed)) == pair.fingerprint


def test_copied_whole_it_is_still_signed(signed: Path, pair: Pair, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(signed, tmp_path / "elsewhere" / "renamed")
    shutil.rmtree(signed)
    assert open_trusted(elsewhere, [pair.public]).verify().foreign == ()


def test_who_trusts_nobody_in_particular_runs_anything(unsigned: Path) -> None:
    assert find_trust() is None
    with Runtime.open(unsigned):
        pass
    (unsigned / "deployment.sig").write_text("nonsense")
    with Runtime.open(unsigned):
        pass


def test_keys_are_files_and_directories_separated_like_a_path(
    signed: Path, pair: Pair, stranger: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "trusted"
    folder.mkdir()
    shutil.copy(pair.public, folder / "ours.pem")
    (folder / "README").write_text("not a key")
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(stranger.public), "", str(folder)]))
    trust = find_trust()
    assert trust is not None
    assert set(trust.keys) == {pair.fingerprint, stranger.fingerprint}
    assert trust.check(Deployment.open(signed)) == pair.fingerprint
    explicit = find_trust([stranger.public])
    assert explicit is not None
    assert set(explicit.keys) == {stranger.fingerprint}, "an argument stands for itself"


@pytest.mark.parametrize("value", ["", ":", "/nonexistent/key.pem"])
def test_a_variable_that_names_no_key_admits_nothing(
    signed: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(SigningError):
        Runtime.open(signed)


def test_an_empty_list_or_directory_admits_nothing(signed: Path, tmp_path: Path) -> None:
    for trusted in ([], [tmp_path]):
        with pytest.raises(SigningError, match="got none, expected one or more"):
            Runtime.open(signed, trusted_keys=trusted)


def open_runtime(path: Path) -> None:
    Runtime.open(path).close()


def open_served(path: Path) -> None:
    ServedModel.open(ModelOptions(path=path)).close()


def start_server(path: Path) -> None:
    async def main() -> None:
        options = ServerOptions(port=0, grpc_port=None)
        async with DeploymentServer([ModelOptions(path=path)], options):
            pass

    asyncio.run(main())


def put_on_ray(path: Path) -> None:
    find_need([path], ScaleOptions())


def start_replica(path: Path) -> None:
    open_service(ReplicaSettings(models=(ModelSettings(path=str(path), plan="only"),)))


def export_triton(path: Path) -> None:
    export_to_repository(path, path.parent.parent / "models")


WAYS: list[Callable[[Path], object]] = [
    open_runtime,
    open_served,
    start_server,
    put_on_ray,
    start_replica,
    export_triton,
    verify_to_deployment,
    bench_to_deployment,
    trace_to_deployment,
]


@pytest.mark.parametrize("way", WAYS)
def test_by_no_way_what_is_unsigned_is_run(
    unsigned: Path,
    pair: Pair,
    way: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, str(pair.public))
    with pytest.raises(DeploymentUntrustedError, match=r"got no signature, expected one by .+Sign"):
        way(unsigned)


def test_of_a_stranger(signed: Path, stranger: Pair, pair: Pair) -> None:
    with pytest.raises(DeploymentUntrustedError, match=f"names key {pair.fingerprint}, expected"):
        Runtime.open(signed, trusted_keys=[stranger.public])


def test_a_stranger_who_takes_over_the_name_of_the_key(
    signed: Path, pair: Pair, stranger: Pair
) -> None:
    """The fingerprint in the file is a hint; the key is the one that is trusted."""
    found = Deployment.open(signed)
    mine = found.read_signature()
    assert mine is not None
    forged = replace(mine, value=stranger.key.sign(found.statement))
    (signed / "deployment.sig").write_bytes(forged.render())
    with pytest.raises(DeploymentUntrustedError, match="not of this content"):
        open_trusted(signed, [pair.public])


def test_signing_anew_replaces_the_signature(signed: Path, pair: Pair, stranger: Pair) -> None:
    """How a key is rotated: trust both for a while, sign again, then trust the new one only."""
    sign_deployment(signed, stranger.key)
    open_trusted(signed, [pair.public, stranger.public])
    open_trusted(signed, [stranger.public])
    with pytest.raises(DeploymentUntrustedError):
        open_trusted(signed, [pair.public])


def test_an_older_one_that_was_signed_is_taken_too(
    signed: Path, pair: Pair, tmp_path: Path
) -> None:
    """Stated in SECURITY.md: a signature does not say that it is the newest."""
    older = shutil.copytree(signed, tmp_path / "older")
    with Deployment.edit(signed) as txn:
        txn.describe(labels=["1", "2", "3", "4"])
    sign_deployment(signed, pair.key)
    shutil.rmtree(signed)
    shutil.copytree(older, signed)
    open_trusted(signed, [pair.public])


def test_a_signature_is_of_this_deployment_only(signed: Path, pair: Pair, tmp_path: Path) -> None:
    other = publish(tmp_path / "other", labels=("w", "x", "y", "z"))
    shutil.copy(signed / "deployment.sig", other)
    with pytest.raises(DeploymentUntrustedError, match="not of this content"):
        open_trusted(other, [pair.public])


def test_a_signature_over_the_same_bytes_for_another_purpose_does_not_count(
    signed: Path, pair: Pair
) -> None:
    found = Deployment.open(signed)
    head, _, rest = found.statement.partition(b"\n")
    assert head == b"parnet-deploy deployment statement 1"
    mine = found.read_signature()
    assert mine is not None
    for data in (rest, b"parnet-deploy deployment statement 2\n" + rest):
        (signed / "deployment.sig").write_bytes(replace(mine, value=pair.key.sign(data)).render())
        with pytest.raises(DeploymentUntrustedError, match="not of this content"):
            open_trusted(signed, [pair.public])


@pytest.fixture(scope="module")
def shared(signed_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all examples of a property; each puts it back."""
    return Path(shutil.copytree(signed_once, tmp_path_factory.mktemp("shared") / "toy"))


def all_files(path: Path) -> list[Path]:
    """Everything of the deployment but the lock."""
    return sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".lock"))


@settings(max_examples=150)
@given(data=st.data(), at=st.floats(0, 1), flip=st.integers(1, 255))
def test_any_flipped_byte_in_any_file_is_refused(
    shared: Path, pair: Pair, data: st.DataObject, at: float, flip: int
) -> None:
    files = all_files(shared)
    assert {path.name for path in files} >= {"deployment.json", "deployment.sig", "build.json"}
    path = data.draw(st.sampled_from(files))
    intact = path.read_bytes()
    changed = bytearray(intact)
    changed[round(at * (len(intact) - 1))] ^= flip
    try:
        path.write_bytes(changed)
        with pytest.raises(DeploymentError):
            Runtime.open(shared, trusted_keys=[pair.public])
    finally:
        path.write_bytes(intact)


@settings(max_examples=60)
@given(data=st.data(), tail=st.binary(min_size=1, max_size=8))
def test_a_changed_file_with_hash_and_seal_put_right_is_refused(
    shared: Path, pair: Pair, data: st.DataObject, tail: bytes
) -> None:
    """What a hash alone cannot see: who can write the directory can write the manifest too."""
    import hashlib

    manifest = shared / "deployment.json"
    path = data.draw(st.sampled_from([p for p in all_files(shared) if p.parent != shared]))
    kept = {p: p.read_bytes() for p in (path, manifest)}
    try:
        path.write_bytes(kept[path] + tail)
        about = json.loads(kept[manifest])
        del about["sha256"]
        record = about["artifacts"][path.relative_to(shared).as_posix()]
        record["sha256"] = hashlib.sha256(kept[path] + tail).hexdigest()
        record["bytes"] += len(tail)
        manifest.write_bytes(seal(about))
        assert Deployment.open(shared).verify(), "without a signature nothing is to be seen"
        with pytest.raises(DeploymentUntrustedError, match="not of this content"):
            Runtime.open(shared, trusted_keys=[pair.public])
    finally:
        for kept_path, content in kept.items():
            kept_path.write_bytes(content)


def test_a_file_that_hides_among_the_reports_is_refused(signed: Path, pair: Pair) -> None:
    """It would not be in the statement: a canary that agrees with changed engines, for example."""
    with Deployment.edit(signed) as txn:
        txn.stage("plans/only/more.bin").write_bytes(b"x")
        txn.finish_step("bench", key=step_key(a=1))
    with pytest.raises(DeploymentUntrustedError, match="which no signature covers"):
        open_trusted(signed, [pair.public])


def test_after_bench_and_verify_it_is_signed_still(
    signed: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(pair.public))
    with Deployment.edit(signed) as txn:
        txn.stage("reports/bench.json").write_bytes(b"{}")
        txn.finish_step("bench", key=step_key(a=1))
    with Runtime.open(signed):
        pass


def test_a_runtime_that_loses_a_device_runs_nothing_unsigned(
    tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "toy"
    plans = {"three": (THREE, None, "2026-01-05"), "cpu": (ONE, 1.0, "2026-01-03")}
    publish_plans(path, plans, canary=canary_of(X, EXPECTED))
    sign_deployment(path, pair.key)
    monkeypatch.setattr(
        fake, "FakeOptions", lambda: FakeOptions(faults=FaultPlan(lose_device={2: 12}))
    )
    with Runtime.open(
        path, plan="three", on_device_lost="replan", trusted_keys=[pair.public]
    ) as runtime:
        (path / "deployment.sig").unlink()
        with pytest.raises(DeviceLostError, match="got no signature"):
            until_lost(runtime)


def test_a_server_takes_an_unsigned_one_once_it_is_signed(
    signed: Path, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(pair.public))
    new = publish(tmp_path / "new", labels=("w", "x", "y", "z"))

    async def main() -> None:
        async with DeploymentServer(
            [ModelOptions(path=signed)], ServerOptions(port=0, grpc_port=None)
        ) as server:
            before = server.service.model_card("toy")["digest"]
            shutil.rmtree(signed)
            shutil.copytree(new, signed)
            for _ in range(2):
                with pytest.raises(DeploymentUntrustedError, match="got no signature"):
                    await server.reload(again=False)
            assert server.service.model_card("toy")["digest"] == before, "it goes on"
            (signed / "deployment.sig").write_text("nonsense")
            with pytest.raises(DeploymentUntrustedError):
                await server.reload(again=False)
            sign_deployment(signed, pair.key)
            assert await server.reload(again=False) == ["toy"]

    asyncio.run(main())


def test_rewritten_while_it_is_checked(signed: Path, pair: Pair) -> None:
    found = Deployment.open(signed)
    with Deployment.edit(signed) as txn:
        txn.describe(labels=["1", "2", "3", "4"])
    with pytest.raises(DeploymentChangedError, match="rewritten while its signature was checked"):
        read_trust([pair.public]).check(found)
    sign_deployment(signed, pair.key)
    assert open_trusted(signed, [pair.public]).labels == ("1", "2", "3", "4")


def test_trust_is_what_it_holds(pair: Pair) -> None:
    assert read_trust([pair.public]) == read_trust([pair.public, pair.public])
    assert read_trust([pair.public]) != Trust(keys={})


def test_nothing_is_imported_unless_keys_are_trusted(
    signed: Path, pair: Pair, tmp_path: Path
) -> None:
    script = (
        "import sys; from parnet_deploy import Runtime; "
        f"Runtime.open({str(signed)!r}).close(); print('cryptography' in sys.modules)"
    )
    for variables, expected in (({}, "False"), ({VARIABLE: str(pair.public)}, "True")):
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected


def test_a_pair_that_is_made_twice_is_two_pairs(tmp_path: Path) -> None:
    assert make_pair(tmp_path / "a").fingerprint != make_pair(tmp_path / "b").fingerprint
