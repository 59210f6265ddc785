"""Evidence is read from a deployment, as far as it can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from parnet_deploy.bench.report.evidence import gather, own_precision, precisions, proofs, scores
from parnet_deploy.deployment import Deployment, step_key
from parnet_deploy.input_size import InputSize
from parnet_deploy.reading import entry, listing, mapping, number
from parnet_deploy.spec import ModelSpec
from tests.bench.report.samples import (
    PLAN,
    make_evidence,
    make_report,
    parity,
    precision_report,
)
from tests.networks import SPEC
from tests.toy_deployments import export_toy


def write(directory: Path, **files: Any) -> None:
    with Deployment.edit(directory) as txn:
        for name, data in files.items():
            text = data if isinstance(data, str) else json.dumps(data)
            txn.stage(name).write_text(text, encoding="utf-8")
        txn.finish_step("verify", key=step_key(files=sorted(files)))


def test_reports_are_gathered_and_what_is_missing_is_left_out(tmp_path: Path) -> None:
    directory = export_toy(tmp_path / "toy", SPEC, InputSize.parse("32"))
    precision = precision_report()
    files = {
        "reports/verify.json": {"plans": {}},
        "reports/precision-int8-cpu.json": precision,
        "reports/timeline.svg": "<svg/>",
        "reports/fuse.json": "{broken",
    }
    write(directory, **files)
    found = gather(Deployment.open(directory), PLAN)
    assert set(found) == {"verify", "precision-int8-cpu", "timeline_svg", "manifest"}
    assert found["verify"] == {"plans": {}}
    assert found["precision-int8-cpu"] == precision
    assert ModelSpec.from_json(found["manifest"]["spec"]) == SPEC
    assert set(found["manifest"]["steps"]) == {"export", "verify"}


def test_a_report_that_was_changed_is_no_evidence(tmp_path: Path) -> None:
    directory = export_toy(tmp_path / "toy", SPEC, InputSize.parse("32"))
    write(directory, **{"reports/verify.json": {"plans": {}}})
    (directory / "reports/verify.json").write_text('{"plans": {"x": []}}')
    assert "verify" not in gather(Deployment.open(directory), PLAN)


def test_of_many_parts_the_worst_stands_and_what_failed() -> None:
    checks = [parity(f"part {i}", i * 1e-7) for i in range(5)]
    (found,) = [p for p in proofs({"export": {"checks": checks}}, PLAN) if p.step == "export"]
    assert found.what == "part 4"
    checks += [parity("part 5", 0.1), parity("part 6", 0.2)]
    failed = proofs({"export": {"checks": checks}}, PLAN)
    assert [(p.what, p.passed) for p in failed] == [("part 5", False), ("part 6", False)]


def test_images_are_told_apart_from_the_reference() -> None:
    found = proofs(make_evidence(), PLAN)
    assert [(p.step, p.images) for p in found] == [
        ("fuse", None),
        ("fuse", None),
        ("export", None),
        ("build", None),
        ("verify", None),
        ("verify", 450),
    ]
    assert found[-1].top1_equal == 1.0


def test_a_precision_belongs_to_its_backend() -> None:
    evidence = {
        "precision-int8-cpu": {"n": 1},
        "precision-int8-trt": {"n": 2},
        "precision-fp16": {},
    }
    assert set(precisions(evidence)) == {"int8-cpu", "int8-trt", "fp16"}
    assert set(precisions(evidence, "onnxruntime")) == {"int8-cpu", "fp16"}
    assert set(precisions(evidence, "tensorrt")) == {"int8-trt", "fp16"}
    subject = make_report(count=2, subject={"precision": "int8", "backend": "tensorrt"})["subject"]
    assert own_precision(evidence, subject) == {"n": 2}
    assert own_precision({}, subject) is None


def test_scores_are_the_kernels_where_there_are_any() -> None:
    emulated = {"clean": {"images": 1}}
    assert scores({"measured": {"kernel": None, "emulated": emulated}}) == emulated
    kernel = {"clean": {"images": 2}}
    assert scores({"measured": {"kernel": kernel, "emulated": emulated}}) == kernel


def test_digging_finds_nothing_where_nothing_is() -> None:
    data = {"a": {"b": 3, "c": [1], "d": True, "e": 10**400, "f": float("inf")}}
    assert entry(data, "a", "b") == 3
    assert entry(data, "a", "b", "c") is None
    assert mapping(data, "a", "b") == {}
    assert listing(data, "a", "c") == [1]
    assert listing(data, "a", "b") == []
    assert number(data, "a", "b") == 3.0
    assert [number(data, "a", key) for key in "cdef"] == [None] * 4
