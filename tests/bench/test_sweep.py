"""Curves have a point for what can run, and a reason for what cannot. No time is tested."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from parnet_deploy.bench.arms import ours
from parnet_deploy.bench.arms.ours import open_at_another_size
from parnet_deploy.bench.sweep import SweepOptions, sweep
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import SpecError
from parnet_deploy.input_size import InputSize
from parnet_deploy.machine.cores import usable_cores
from parnet_deploy.reference import random_image
from tests.runtime.runtime_toys import SPECS
from tests.toy_deployments import export_toy

SPEC = SPECS[3]
SIDE = SPEC.size_multiple
RANGE = InputSize(low=(SIDE, SIDE), high=(2 * SIDE, 2 * SIDE))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = export_toy(tmp_path_factory.mktemp("sweep") / "toy", SPEC, RANGE)
    build_to_deployment(directory, BuildOptions(placement="one", threads=1, max_batch=2))
    return directory


def points(directory: Path, *over, **options) -> tuple[list[str], dict[str, str]]:
    (curve,) = sweep(directory, SweepOptions(over=over, rounds=2, **options))
    assert curve["over"] == over[0]
    for point in curve["points"]:
        assert 0 < point["ms"]["low"] <= point["ms"]["value"] <= point["ms"]["high"]
    return [point["value"] for point in curve["points"]], curve["left_out"]


def test_over_batch(built) -> None:
    found, left_out = points(built, "batch", batches=(1, 2, 4))
    assert found == ["1", "2"]
    assert left_out == {"4": "the plan takes 2 at most; run: parnet-deploy build --max-batch 4"}


def test_over_threads(built) -> None:
    cores = usable_cores()
    found, left_out = points(built, "threads", threads=(1, cores + 1))
    assert found == ["1"]
    assert left_out == {str(cores + 1): f"this process may use {cores} cores"}


def test_over_size(built) -> None:
    found, left_out = points(built, "size", sizes=(SIDE, 2 * SIDE, 4 * SIDE, SIDE + 1))
    assert found == [str(SIDE), str(2 * SIDE)]
    assert set(left_out) == {str(4 * SIDE), str(SIDE + 1)}


def test_over_variant(built, tmp_path) -> None:
    other = Path(shutil.copytree(built, tmp_path / "other"))
    found, left_out = points(built, "variant", variants=(other, tmp_path / "absent"))
    assert found == ["toy", "other"]
    assert set(left_out) == {"absent"}


def test_a_size_that_nobody_knows_is_checked_at_one_that_somebody_does(built, monkeypatch) -> None:
    plan = next(iter(Deployment.open(built).plans))
    arm = open_at_another_size(directory=str(built), plan=plan, threads=1)
    assert arm.self_check is not None
    assert arm.self_check.error <= arm.self_check.limit
    assert np.isfinite(arm.run(random_image(SPEC, SIDE, SIDE))).all()
    arm.close()
    read = ours.read_reference

    def other_logits(deployment):
        found = read(deployment)
        return type(found)(image=found.image, logits=found.logits + 1)

    monkeypatch.setattr(ours, "read_reference", other_logits)
    wrong = open_at_another_size(directory=str(built), plan=plan, threads=1)
    assert wrong.self_check is not None
    assert wrong.self_check.error > wrong.self_check.limit
    wrong.close()


@pytest.mark.parametrize("options", [{"over": ("colour",)}, {"batches": (0,)}])
def test_impossible_options(options) -> None:
    with pytest.raises(SpecError, match="sweep: "):
        SweepOptions(**options)
