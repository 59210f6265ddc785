"""A backend that writes NaN, infinities or wrong values: at open, in service, and in a proof."""

from __future__ import annotations

import numpy as np
import pytest

from parnet_deploy import Runtime
from parnet_deploy.errors import BackendError, CheckFailedError, DeploymentError, ExecutionError
from parnet_deploy.runtime import opened as module
from parnet_deploy.runtime.arrays.inputs import address_of
from parnet_deploy.runtime.fake import backend as fake
from parnet_deploy.runtime.fake.options import FakeOptions, FaultPlan
from tests.chaos.faulty import Faults, FaultyBackend
from tests.runtime.runtime_toys import PLACEMENTS, images, make_plan, reference, write_engines
from tests.runtime.test_session import (
    EXPECTED,
    SIZE,
    SPEC,
    STREAMS,
    X,
    canary_of,
    close_to,
    publish,
)

SEGMENTS = [segment.name for segment in STREAMS.placement.segments]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    """On simulated devices every placement, and one on the CPU."""
    path = tmp_path_factory.mktemp("engines") / "toy"
    plans = {"cpu": (STREAMS, 1.0, "2026-01-01T00:00:00+00:00")}
    for index, (name, place) in enumerate(PLACEMENTS.items()):
        plan = make_plan(place(SPEC), SIZE, 4, backend="fake")
        plans[name.replace(" ", "-")] = (plan, None, f"2026-01-0{2 + index}T00:00:00+00:00")
    publish(path, plans, canary=canary_of(X, EXPECTED))
    return path


@pytest.fixture
def faults(monkeypatch):
    """Faults of the CPU's engines, to be switched on while they are in service."""
    found = Faults()
    monkeypatch.setattr(module, "load_backend", lambda name: FaultyBackend(found))
    return found


def cases() -> list[tuple[str, str]]:
    return [
        (name.replace(" ", "-"), segment.name)
        for name, place in PLACEMENTS.items()
        for segment in place(SPEC).segments
    ]


@pytest.mark.parametrize("kind", ["write_nan", "write_wrong"])
@pytest.mark.parametrize(("plan", "segment"), cases())
def test_at_open_the_canary_refuses_it(deployment, monkeypatch, plan, segment, kind):
    faults = FaultPlan(**{kind: frozenset({segment})})
    monkeypatch.setattr(fake, "FakeOptions", lambda: FakeOptions(faults=faults))
    with pytest.raises(CheckFailedError, match=f"canary of .*plan {plan}"):
        Runtime.open(deployment, plan=plan)


SPOILED = [*((name, np.nan) for name in SEGMENTS), ("head", np.inf), ("head", -np.inf)]


@pytest.mark.parametrize("timeout_s", [None, 60.0])
@pytest.mark.parametrize(("segment", "value"), SPOILED)
def test_in_service_what_is_not_finite_is_not_handed_over(
    deployment, faults, segment, value, timeout_s
):
    x, logits = images(SPEC, 2), np.full((2, SPEC.num_classes), 7, np.float32)
    with Runtime.open(deployment, plan="cpu", check_finite=True, timeout_s=timeout_s) as rt:
        assert close_to(rt(x), reference(SPEC, x))
        faults.spoil = {segment: value}
        for ask in (rt, lambda x: rt.submit(x).result(), lambda x: into(rt, x, logits)):
            with pytest.raises(ExecutionError, match="plan cpu: got logits with NaN or infinities"):
                ask(x)
        assert np.all(logits == 7)
        faults.spoil = {}
        assert close_to(rt(x), reference(SPEC, x))


def test_without_the_check_it_is_handed_over(deployment, faults):
    with Runtime.open(deployment, plan="cpu") as rt:
        faults.spoil = {"head": np.nan}
        assert np.isnan(rt(X)).any()


def test_the_check_looks_at_the_images_of_the_batch_and_no_others(deployment, faults):
    with Runtime.open(deployment, plan="cpu", check_finite=True) as rt:
        faults.spoil = {"head": np.nan}
        with pytest.raises(ExecutionError):
            rt(images(SPEC, 4))  # the last image of four
        faults.spoil = {}
        for batch in (1, 2, 3):
            x = images(SPEC, batch)
            assert close_to(rt(x), reference(SPEC, x))


def test_a_nan_in_the_input_is_told_too(deployment):
    x = images(SPEC)
    x[0, 1, 2, 3] = np.nan
    with Runtime.open(deployment, plan="cpu", check_finite=True) as rt:
        with pytest.raises(ExecutionError, match="Look for them in the input"):
            rt(x)
        assert close_to(rt(X), EXPECTED)


@pytest.mark.parametrize("segment", SEGMENTS)
def test_in_service_a_proof_finds_wrong_values(deployment, faults, segment):
    with Runtime.open(deployment, plan="cpu", check_finite=True) as rt:
        about = rt.describe()["canary"]
        assert rt.prove() == about
        faults.wrong = frozenset({segment})
        assert np.isfinite(rt(X)).all()  # nobody notices
        with pytest.raises(CheckFailedError, match=r"canary of .*plan cpu"):
            rt.prove()
        faults.wrong = frozenset()
        assert rt.prove() == about


def test_a_proof_needs_what_was_stored_and_an_open_runtime(files_of_one, deployment):
    plan, files = files_of_one
    with (
        Runtime.from_plan(SPEC, plan, files) as rt,
        pytest.raises(DeploymentError, match="placement streams: got no canary"),
    ):
        rt.prove()
    rt = Runtime.open(deployment, plan="cpu")
    rt.close()
    with pytest.raises(BackendError, match="it is closed"):
        rt.prove()


@pytest.fixture
def files_of_one(tmp_path):
    return STREAMS, write_engines(SPEC, STREAMS, tmp_path)


def into(rt: Runtime, x: np.ndarray, logits: np.ndarray) -> None:
    rt.run_into(address_of(x), address_of(logits), len(x))
