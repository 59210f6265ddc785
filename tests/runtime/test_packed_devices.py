"""A plan built on some GPUs of a machine, in a process that is shown only as many as it needs."""

from __future__ import annotations

import pytest

from parnet_deploy.placement import streams
from parnet_deploy.runtime.fake import backend as fake
from parnet_deploy.runtime.fake.options import FakeOptions, FaultPlan
from parnet_deploy.runtime.session import Runtime
from tests.runtime.runtime_toys import SPECS, fixed_size, images, make_plan, reference
from tests.runtime.test_session import canary_of, close_to, publish

SPEC = SPECS[3]
SIZE = fixed_size(SPEC)
X = images(SPEC, 2)
EXPECTED = reference(SPEC, X)


@pytest.fixture
def deployment(tmp_path):
    """One plan, built on GPUs 5 and 7 of its machine; two of the three streams share GPU 7."""
    plan = make_plan(streams(SPEC, (7, 5, 7)), SIZE, 4, backend="fake")
    publish(tmp_path / "toy", {"two": (plan, None, "")}, canary=canary_of(X, EXPECTED))
    return tmp_path / "toy"


def devices_of(about) -> dict[str, int]:
    return {s["name"]: s["device"] for s in about["placement"]["segments"]}


def test_devices_are_numbered_from_0_and_stay_apart_as_they_were(deployment):
    with Runtime.open(deployment) as rt:
        built = devices_of(rt.describe())
    with Runtime.open(deployment, packed_devices=True) as rt:
        packed = devices_of(rt.describe())
        assert close_to(rt(X), EXPECTED)
    assert set(built.values()) == {5, 7}
    assert packed == {name: {5: 0, 7: 1}[device] for name, device in built.items()}


def test_what_takes_over_after_a_loss_is_packed_too(deployment, monkeypatch):
    faults = FaultPlan(lose_device={1: 12})
    monkeypatch.setattr(fake, "FakeOptions", lambda: FakeOptions(faults=faults))
    with Runtime.open(deployment, packed_devices=True, on_device_lost="replan") as rt:
        for _ in range(40):
            assert close_to(rt(X), EXPECTED)
        (loss,) = rt.describe()["lost"]
        assert loss["now"]["devices"] == [0]
        assert set(devices_of(rt.describe()).values()) == {0}
