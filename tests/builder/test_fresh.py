"""Candidates measured in fresh processes: right answers, samples that pair, failures told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from parnet_deploy.builder.built_arm import arm_of, open_traced
from parnet_deploy.builder.candidates import Candidate
from parnet_deploy.builder.fresh import measure_fresh
from parnet_deploy.builder.planner import Built
from parnet_deploy.placement import one, streams
from parnet_deploy.reference import Reference
from tests.runtime.runtime_toys import (
    SPECS,
    fixed_size,
    images,
    make_plan,
    reference,
    write_engines,
)

SPEC = SPECS[3]


def built(folder: Path, make=one) -> Built:
    candidate = Candidate(placement=make(SPEC), threads=1, backend="onnxruntime")
    plan = make_plan(candidate.placement, fixed_size(SPEC), threads=1)
    place = folder / candidate.placement.name
    place.mkdir()
    write_engines(SPEC, plan, place)
    check = {"what": "whole", "error": 0.0, "tolerance": 1e-4}
    return Built(candidate=candidate, plan=replace(plan, made={"checks": [check]}), folder=place)


def asked() -> Reference:
    return Reference(image=images(SPEC), logits=reference(SPEC, images(SPEC)))


def silent(text: str) -> None:
    assert text


def test_samples_of_all_candidates_pair(tmp_path) -> None:
    items = [built(tmp_path), built(tmp_path, streams)]
    latencies, failed = measure_fresh(SPEC, items, silent, reference=asked())
    assert list(latencies) == [item.candidate.label for item in items]
    lengths = {len(latency.samples_ms) for latency in latencies.values()}
    assert len(lengths) == 1
    assert lengths.pop() >= 20
    assert not failed


def test_a_candidate_that_cannot_be_opened_is_left_out_with_the_reason(tmp_path) -> None:
    good, bad = built(tmp_path), built(tmp_path, streams)
    (bad.folder / "head.onnx").write_bytes(b"no engine")
    latencies, failed = measure_fresh(SPEC, [good, bad], silent, reference=asked())
    assert list(latencies) == [good.candidate.label]
    assert [item.candidate for item in failed] == [bad.candidate]
    assert "head.onnx" in str(failed[0].error)


def test_another_answer_in_a_process_of_its_own_is_left_out(tmp_path) -> None:
    good, bad = built(tmp_path), built(tmp_path, streams)
    file = bad.folder / "head.onnx"
    model = onnx.load(file)
    weight = model.graph.initializer[0]
    changed = onnx.numpy_helper.to_array(weight) + np.float32(1)
    weight.CopyFrom(onnx.numpy_helper.from_array(changed, weight.name))
    onnx.save(model, file)
    latencies, failed = measure_fresh(SPEC, [bad, good], silent, reference=asked())
    assert list(latencies) == [good.candidate.label]
    assert [item.candidate for item in failed] == [bad.candidate]
    assert "arm streams, 1 core" in str(failed[0].error)


def test_if_none_is_right_all_are_left_out(tmp_path) -> None:
    wrong = replace(asked(), logits=asked().logits + 1)
    items = [built(tmp_path), built(tmp_path, streams)]
    latencies, failed = measure_fresh(SPEC, items, silent, reference=wrong)
    assert not latencies
    assert [item.candidate for item in failed] == [item.candidate for item in items]


def test_a_traced_candidate_tells_the_time_of_each_engine(tmp_path) -> None:
    item = built(tmp_path, streams)
    spec = arm_of(item, SPEC, "open_traced", shape=list(images(SPEC).shape))
    assert spec.entry.endswith(":open_traced")
    arm = open_traced(**spec.options)
    try:
        spent = arm.facts["segment_ms"]
        assert set(spent) == {segment.name for segment in item.candidate.placement.segments}
        assert all(value > 0 for value in spent.values())
    finally:
        arm.close()
