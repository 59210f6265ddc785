from __future__ import annotations

import numpy as np
import onnx
import pytest

from parnet_deploy.bench.split.profile import parts_of_call, profile_engine
from parnet_deploy.bench.split.split import longest_path, shares_of, stage_of
from parnet_deploy.placement import Segment, one
from parnet_deploy.spec import RELEASED, ModelSpec
from tests.runtime.runtime_toys import SPECS, fixed_size, images, onnx_segment, reference

SPEC = RELEASED["parnet-s"]


def kernel(ts: int, name: str, dur: int) -> dict[str, object]:
    return {"ts": ts, "name": f"{name}_kernel_time", "dur": dur}


def test_kernels_go_to_the_part_of_their_block() -> None:
    events = [kernel(3, "streams.1.0/gated", 500), kernel(1, "inits.0.1/conv_nchwc", 1500)]
    assert parts_of_call(events, SPEC) == {"stem0": 1.5, "stream1": 0.5}


def test_layout_conversions_go_with_their_neighbours() -> None:
    events = [
        kernel(0, "ReorderInput", 10),
        kernel(1, "inits.0.0/conv_nchwc", 100),
        kernel(2, "ReorderOutput_token_9", 20),
        kernel(3, "ReorderInput_token_4", 40),
        kernel(4, "combine.3/conv", 200),
        kernel(5, "head/fc", 1),
    ]
    found = parts_of_call(events, SPEC)
    assert found == {"stem0": pytest.approx(0.13), "head": pytest.approx(0.241)}


def test_float16_that_is_computed_in_float32_keeps_its_part() -> None:
    events = [
        kernel(0, "stem0/image/to_half", 3),
        kernel(1, "InsertedPrecisionFreeCast_inits.0.0/conv_nchwc", 100),
        kernel(2, "ReorderOutput_token_7", 5),
        kernel(3, "stream2/x2/quantize", 20),
        kernel(4, "InsertedPrecisionFreeCast_head/d1/half", 40),
    ]
    found = parts_of_call(events, SPEC)
    assert found == {
        "stem0": pytest.approx(0.108),
        "stream2": pytest.approx(0.02),
        "head": pytest.approx(0.04),
    }


def test_what_has_no_name_is_not_given_to_anybody() -> None:
    events = [
        kernel(0, "inits.0.0/conv", 100),
        kernel(1, "fused_by_somebody", 30),
        kernel(2, "ReorderOutput_2", 5),
        kernel(3, "ReorderInput_1", 7),
    ]
    found = parts_of_call(events, SPEC)
    assert found == {"stem0": pytest.approx(0.1), "": pytest.approx(0.042)}


def test_every_microsecond_is_counted_once() -> None:
    generator = np.random.default_rng(0)
    names = ["inits.1/conv", "ReorderInput_3", "ReorderOutput_1", "odd", "streams.2.0/silu"]
    events = [
        kernel(i, str(generator.choice(names)), int(generator.integers(1, 99))) for i in range(60)
    ]
    total = sum(int(str(event["dur"])) for event in events)
    assert sum(parts_of_call(events, SPEC).values()) == pytest.approx(total / 1e3)


@pytest.mark.parametrize("spec", SPECS.values(), ids=[f"{n} streams" for n in SPECS])
def test_an_engine_under_the_profiler_answers_as_ever(spec: ModelSpec, tmp_path) -> None:
    size = fixed_size(spec)
    engine = tmp_path / "all.onnx"
    onnx.save(onnx_segment(spec, one(spec).segments[0], size), engine)
    image = images(spec)
    found, values = profile_engine(engine, {"image": image}, spec, threads=1)
    np.testing.assert_allclose(values["logits"], reference(spec, image), rtol=1e-4, atol=1e-5)
    assert 0 < sum(found.parts.values()) <= found.whole_ms


def test_a_part_is_of_a_stage() -> None:
    found = {part.name: stage_of(part.name) for part in SPEC.parts}
    assert found["stem2"] == "stems"
    assert found["stream0"] == "streams"
    assert found["fusion1"] == "fusion"
    assert found["head"] == "head"


def test_the_longest_path_is_the_slowest_way() -> None:
    even = {part.name: 1.0 for part in SPEC.parts}
    slow = {**even, "stream0": 9.0}
    assert longest_path(SPEC, slow) == {"stem0", "stream0", "fusion0", "fusion1", "head"}
    slow = {**even, "stream2": 9.0}
    assert longest_path(SPEC, slow) == {"stem0", "stem1", "stem2", "stream2", "head"}


def test_an_engine_is_divided_by_its_profile_only() -> None:
    pair = Segment(name="b", parts=("stem1", "stream1"), inputs=("x0",), outputs=("y1",))
    assert shares_of(pair, {"stem1": 1.0, "stream1": 2.0, "": 1.0}) == {
        "stem1": 0.25,
        "stream1": 0.5,
    }
    assert shares_of(pair, {}) == {}, "nobody saw the inside"
    alone = Segment(name="s", parts=("stem1",), inputs=("x0",), outputs=("x1",))
    assert shares_of(alone, {}) == {"stem1": 1.0}
