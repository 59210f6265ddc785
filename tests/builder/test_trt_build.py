"""The child's own code in this process: cancelled builds, timing caches that merge, events."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from parnet_deploy.builder.tensorrt import timing_cache
from parnet_deploy.builder.tensorrt.build import build_plan
from parnet_deploy.builder.tensorrt.job import Job, TensorRtOptions
from parnet_deploy.builder.tensorrt.timing_cache import keep_timing, read_timing, use_timing
from parnet_deploy.builder.tensorrt.worker import Reporter
from parnet_deploy.errors import EngineBuildError
from tests.builder.test_tensorrt import MANY, ONE
from tests.builder.trt_graphs import conv_graph
from tests.stubs.fake_tensorrt import VERSIONS, fake_tensorrt


def make_job(folder: Path, **more: Any) -> Job:
    (folder / "graph.onnx").write_bytes(conv_graph())
    return Job(
        name="s",
        device=0,
        graph=folder / "graph.onnx",
        plan=folder / "s.plan",
        result=folder / "result.json",
        timing_cache=folder / "timing" / "t.cache",
        profiles=(ONE, MANY),
        options=TensorRtOptions(optimization_level=1),
        **more,
    )


def config_of(trt: Any) -> Any:
    return trt._IBuilderConfig()


def known(path: Path) -> list[str]:
    return list(json.loads(read_timing(path))["known"])


@pytest.mark.parametrize("version", VERSIONS)
def test_job_and_record(version: str, tmp_path: Path) -> None:
    job = make_job(tmp_path, keep_float=("a",))
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job
    trt = fake_tensorrt(version)
    record = build_plan(trt, job, lambda *_: True)
    assert json.loads(json.dumps(record)) == record
    assert trt._control.built == 1
    assert trt._control.measured == 3
    build_plan(trt, job, lambda *_: True)
    assert trt._control.measured == 3, "the timing cache knew all"


@pytest.mark.parametrize("version", ["10.16", "11.4"])
def test_cancelled_build_keeps_what_it_measured(version: str, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    with pytest.raises(EngineBuildError, match="engine s: got no plan"):
        build_plan(fake_tensorrt(version), job, lambda phase, done, total: done < 2)
    assert not job.plan.exists()
    assert len(known(job.timing_cache)) == 2


def test_timing_caches_merge(tmp_path: Path) -> None:
    """Two builds start from nothing and end one after the other; both stay in the file."""
    trt, path = fake_tensorrt("10.16"), tmp_path / "t.cache"
    configs = [config_of(trt), config_of(trt)]
    for config, name in zip(configs, "ab", strict=True):
        assert use_timing(config, path) is False
        config.get_timing_cache()._data["known"].append(name)
    assert all(keep_timing(config, path) for config in configs)
    assert known(path) == ["a", "b"]
    third = config_of(trt)
    assert use_timing(third, path)
    assert third.get_timing_cache()._data["known"] == ["a", "b"]


def test_foreign_timing_cache_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "t.cache"
    for trt in (fake_tensorrt("10.16"), fake_tensorrt("11.4")):
        config = config_of(trt)
        assert use_timing(config, path) is False
        config.get_timing_cache()._data["known"].append(trt.__version__)
        assert keep_timing(config, path)
    assert known(path) == ["11.4.0.106"]
    assert "ignored, for it is of another version or GPU" in caplog.text


def test_content_that_tensorrt_cannot_read(tmp_path: Path) -> None:
    """Intact by our digest, but TensorRT gives nothing for it."""
    path = tmp_path / "t.cache"
    content = b"{not json"
    timing_cache.write_file(path, timing_cache.hashlib.sha256(content).digest() + content)
    config = config_of(fake_tensorrt("10.16"))
    assert use_timing(config, path) is False
    assert keep_timing(config, path)
    assert known(path) == []


def test_timing_cache_that_cannot_be_written_or_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    config = config_of(fake_tensorrt("10.16"))
    assert keep_timing(config, tmp_path / "t") is False, "the build had none"
    assert use_timing(config, tmp_path) is False, "a folder"
    assert keep_timing(config, tmp_path / "file" / "t.cache") is False
    assert "timing cache t.cache: not written" in caplog.text


def test_reporter_sends_whole_percents_and_warnings() -> None:
    stream = io.StringIO()
    reporter = Reporter(stream)
    assert all(reporter.step("tactics", done, 1000) for done in range(1, 21))
    logger = logging.Logger("t")
    logger.addHandler(reporter)
    logger.info("not this")
    logger.warning("a %s", "b")
    logger.error("c")
    reporter.cancel(15, None)
    assert reporter.step("tactics", 21, 0) is False
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    texts = [event["text"] for event in events if event["event"] == "progress"]
    assert texts == [f"tactics: {n} %" for n in (0, 1, 2, 2100)]
    assert [e["text"] for e in events if e["event"] == "log"] == ["warning: a b", "error: c"]
