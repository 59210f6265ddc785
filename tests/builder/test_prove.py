"""Engines are proved here or in a process of their own, with the same outcome."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from parnet_deploy.builder import prove
from parnet_deploy.builder.prove import Proof, prove_in_child, prove_plan
from parnet_deploy.errors import BackendError
from parnet_deploy.placement import streams
from parnet_deploy.reference import Reference
from parnet_deploy.spec import IMAGE
from tests.runtime.runtime_toys import (
    SPECS,
    fixed_size,
    images,
    make_plan,
    part_kernel,
    write_engines,
)

SPEC = SPECS[3]


@pytest.fixture
def proofs() -> list[Proof]:
    values = {IMAGE: images(SPEC)}
    for part in SPEC.parts:
        values[part.output] = part_kernel(SPEC, part, values)
    reference = Reference(image=values[IMAGE], logits=values["logits"])
    return [Proof(reference=reference, values=values)]


@pytest.fixture
def plan(tmp_path: Path):
    found = make_plan(streams(SPEC), fixed_size(SPEC), max_batch=2, threads=1)
    write_engines(SPEC, found, tmp_path)
    return found


def test_both_ways_find_the_same(tmp_path, plan, proofs) -> None:
    here = prove_plan(SPEC, plan, tmp_path, proofs, tolerance=1e-4)
    there = prove_in_child(SPEC, plan, tmp_path, proofs, tolerance=1e-4)
    assert [check.what for check in there] == [check.what for check in here]
    assert {"engine stream1, y1", "whole, second of batch 2"} <= {c.what for c in there}
    assert all(there)
    assert max(check.error for check in there) == pytest.approx(
        max(check.error for check in here), rel=1e-3, abs=1e-7
    )


def test_a_wrong_engine_is_found_in_the_child(tmp_path, plan, proofs) -> None:
    file = tmp_path / "stream1.onnx"
    model = onnx.load(file)
    weight = model.graph.initializer[0]
    changed = onnx.numpy_helper.to_array(weight) * np.float32(1.01)
    weight.CopyFrom(onnx.numpy_helper.from_array(changed, weight.name))
    onnx.save(model, file)
    failed = [c.what for c in prove_in_child(SPEC, plan, tmp_path, proofs, tolerance=1e-4) if not c]
    assert "engine stream1, y1" in failed
    assert "engine stream0, d0" not in failed


def test_an_engine_that_ends_its_process_is_an_error(tmp_path, plan, proofs, monkeypatch) -> None:
    monkeypatch.setattr(prove, "ENTRY", "tests.builder.test_prove:open_dying")
    with pytest.raises(BackendError, match="was ended by SIGSEGV"):
        prove_in_child(SPEC, plan, tmp_path, proofs, tolerance=1e-4)


def open_dying(**options: object) -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGSEGV)
