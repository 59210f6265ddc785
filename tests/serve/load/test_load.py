"""Overload and soak, short: what must hold on any machine (long: make overload, make soak)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.serve.load.deployments import make_deployment
from tests.serve.load.known import Known, make_known, rest_logits, rest_request
from tests.serve.load.overload import QUEUE, broken, overload
from tests.serve.load.processes import Running, drive, serving
from tests.serve.load.soak import grown, soak
from tests.serve.load.tally import Tally
from tests.serve.load.watch import Sample, Watch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("load")


@pytest.fixture(scope="module")
def deployment(place: Path) -> Path:
    return make_deployment(place)


@pytest.fixture(scope="module")
def known(deployment: Path) -> Known:
    return make_known(deployment, 16)


@pytest.fixture
def running(deployment: Path, tmp_path: Path) -> Iterator[Running]:
    with serving([deployment], tmp_path, service={"max_queue": QUEUE}) as found:
        yield found
        assert "Traceback" not in found.complaints()


def test_overload_refuses_quickly_and_answers_the_rest_rightly(
    running: Running, known: Known, tmp_path: Path
) -> None:
    found = overload(running, known, tmp_path, seconds=5)
    storm, probe = found["storm"], found["probe"]
    assert broken(storm) == []
    assert broken(probe) == []
    assert storm["refused"] > 100, "it was not overloaded"
    # How quick is for make overload to say; refused is quicker than served on any machine.
    assert storm["refused_ms"]["p50"] < storm["ok_ms"]["p50"]
    assert found["server"]["fds"] <= 1


def test_soak_answers_all_rightly_and_grows_in_nothing(
    running: Running, known: Known, tmp_path: Path
) -> None:
    found = soak(running, known, tmp_path, seconds=20)
    assert broken(found["measured"]) == []
    assert broken(found["report"]) == []
    assert found["report"]["ok"] > 0.5 * 20 * found["rate_per_s"]
    assert grown(found) == []
    assert found["fds"][1] <= found["fds"][0] + 1


def test_the_clients_see_a_wrong_answer(running: Running, known: Known, tmp_path: Path) -> None:
    others = replace(known, logits=np.roll(known.logits, 1, axis=0))
    (report,) = drive(running, others, tmp_path, {"rest": 2, "grpc": 2, "each": 3})
    assert (report["ok"], report["wrong"]) == (12, 12)
    assert any("wrong" in line for line in broken(report))


def test_the_clients_see_a_server_that_is_not_there(
    running: Running, known: Known, tmp_path: Path
) -> None:
    (report,) = drive(running, replace(known, model="absent"), tmp_path, {"rest": 1, "each": 2})
    assert report["unexpected"] == 2
    assert "REST 404" in report["examples"][0]


def test_requests_and_answers_fit_together(known: Known) -> None:
    headers, body = rest_request(known, 3, "a-1", encoded=False)
    end = int(headers["Inference-Header-Content-Length"])
    assert np.array_equal(np.frombuffer(body, "<f4", offset=end), known.images[3].ravel())
    output = {"name": "logits", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    head = json.dumps({"id": "a-1", "outputs": [output]}).encode()
    answer = {"inference-header-content-length": str(len(head))}
    request_id, logits = rest_logits(answer, head + np.array([1, 2], "<f4").tobytes())
    assert (request_id, logits.tolist()) == ("a-1", [1.0, 2.0])


def test_growth_is_a_slope_after_the_warm_up() -> None:
    watch = Watch(0)
    for second in range(100):
        size = 10**6 + (50_000 * second if second < 30 else 1_500_000 + 1000 * second)
        watch.samples.append(Sample(second, size, 20, 4 + second // 50, 0.0, 0.0))
    assert watch.growth("rss_bytes") == pytest.approx(69_000, rel=0.01)
    assert watch.growth("fds") == pytest.approx(0, abs=1e-6)
    assert watch.growth("threads") > 0.5


def test_a_tally_tells_refusals_by_reason_not_by_number() -> None:
    tally = Tally()
    tally.refuse("REST got 64 images", 1.0)
    tally.refuse("REST got 65 images", 3.0)
    tally.ok_ms.append(5.0)
    report = tally.report(2.0)
    assert report["reasons"] == {
        "REST got N images": {"count": 2, "p50": 2.0, "p99": 2.98, "max": 3.0}
    }
    assert (report["sent"], report["ok_per_s"]) == (3, 0.5)
