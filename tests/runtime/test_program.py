"""The compiled program, without any device."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parnet_deploy.placement import Placement, recompute, streams
from parnet_deploy.runtime.program import Lane, Program, Step, compile_program
from parnet_deploy.spec import IMAGE, RELEASED
from tests.runtime.runtime_toys import PLACEMENTS, SPECS, make_segment, random_placement


def missing_order(program: Program, placement: Placement) -> list[str]:
    """What an independent look at the steps finds unordered, over two walks one after the other.

    A step happens after the one before it in its lane, and a wait after the record that it refers
    to; the closure of that must order every writer and reader of the same memory. The main lane
    begins behind whoever wrote the caller's image (``Executor.launch``).
    """
    segments = {segment.name: segment for segment in placement.segments}
    begin = Step(op="begin", lane=program.main)
    steps = [begin, *program.steps, begin, *program.steps]
    uploaded = {step.lane.device for step in steps if step.op == "upload"}
    behind: list[set[int]] = []  # per step: all steps that surely ended before
    last_in_lane: dict[Lane, int] = {}
    recorded: dict[int, int] = {}
    writers: dict[tuple[str, int], int] = {}
    readers: dict[tuple[str, int], list[int]] = {}
    found = []
    for index, step in enumerate(steps):
        before: set[int] = set()
        sources = [last_in_lane.get(step.lane)]
        if step.op == "wait":
            sources.append(recorded.get(step.event))
        for source in sources:
            if source is not None:
                before |= behind[source] | {source}
        behind.append(before)
        last_in_lane[step.lane] = index
        if step.op == "record":
            recorded[step.event] = index
        device = step.lane.device
        reads, writes = [], []
        if step.op == "run":
            reads = [
                ("caller", -1) if name == IMAGE and device not in uploaded else (name, device)
                for name in segments[step.name].inputs
            ]
            writes = [(name, device) for name in segments[step.name].outputs]
        elif step.op == "copy":
            reads, writes = [(step.name, device)], [(step.name, step.target)]
        elif step.op == "upload":
            reads, writes = [("caller", -1)], [(step.name, device)]
        elif step.op == "begin":
            writes = [("caller", -1)]
        elif step.op == "download":
            reads = [(step.name, device)]
        for place in reads:
            if place in writers and writers[place] not in before:
                found.append(f"{step} before {place} is written")
            readers.setdefault(place, []).append(index)
        for place in writes:
            users = [*readers.pop(place, []), *([writers[place]] if place in writers else [])]
            found += [f"{step} while {steps[user]}" for user in users if user not in before]
            writers[place] = index
    end = max(i for i, step in enumerate(steps) if step.lane == program.main)
    work = {i for i, step in enumerate(steps) if step.op not in ("record", "wait", "begin")}
    found += [f"{steps[i]} after the end" for i in sorted(work - behind[end] - {end})]
    return found


def without_step(program: Program, index: int) -> Program:
    steps = program.steps[:index] + program.steps[index + 1 :]
    shift = index < program.last
    return replace(
        program,
        steps=steps,
        first=program.first - (index < program.first),
        last=program.last - shift,
    )


def waits(program: Program) -> list[int]:
    return [index for index, step in enumerate(program.steps) if step.op == "wait"]


def test_one_engine_needs_no_event():
    program = compile_program(PLACEMENTS["one"](SPECS[3]), SPECS[3])
    assert [str(step) for step in program.steps] == [
        "device 0 lane 0: upload image",
        "device 0 lane 0: run all",
        "device 0 lane 0: download logits",
    ]
    assert (program.first, program.last) == (1, 2)


def test_streams_on_one_device_fork_and_join_by_events():
    program = compile_program(streams(SPECS[2]), SPECS[2], direct=[0])
    assert [str(step) for step in program.steps] == [
        "device 0 lane 0: run stem0",
        "device 0 lane 0: record event 0",
        "device 0 lane 1: wait event 0",
        "device 0 lane 1: run stream0",
        "device 0 lane 1: record event 1",
        "device 0 lane 0: run stream1",
        "device 0 lane 0: wait event 1",
        "device 0 lane 0: run head",
    ]
    assert program.main == Lane(0, 0)


def test_streams_on_two_devices_push_copies_from_the_producer():
    program = compile_program(streams(SPECS[2], (0, 1)), SPECS[2])
    copies = [str(step) for step in program.steps if step.op == "copy"]
    assert copies == [
        "device 1 lane 1: copy x0 -> device 0",  # beside lane 0, which goes on with stream1
        "device 0 lane 1: copy d0 -> device 1",  # on the producer's own lane, which has ended
    ]
    assert program.events == (1, 1, 0)  # an event belongs to the device that records it
    assert [step.lane.device for step in program.steps if step.op == "upload"] == [1]
    assert program.copy_lanes == (Lane(1, 1),)
    assert program.lanes[-1] == Lane(1, 1)


def test_a_lane_that_must_wait_for_its_copy_pushes_it_itself():
    """Behind ``stem1`` lane 0 has nothing but what needs the answer of the other device."""
    spec = SPECS[2]
    segments = (
        make_segment(spec, "stems", ["stem0", "stem1"]),
        make_segment(spec, "there", ["stream0", "stream1", "fusion0"], device=1),
        make_segment(spec, "head", ["head"]),
    )
    program = compile_program(Placement(name="to and fro", segments=segments), spec)
    assert program.copy_lanes == ()
    copies = [(step.lane, step.name) for step in program.steps if step.op == "copy"]
    assert {lane for lane, _ in copies} == {Lane(0, 0), Lane(1, 0)}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(SPECS)), st.integers(0, 2**32), st.integers(2, 4), st.integers(1, 3))
def test_no_lane_is_held_up_by_its_own_copies(count, seed, devices, lanes):
    """What follows a copy in a lane that runs engines is never free of that copy."""
    spec = SPECS[count]
    placement = random_placement(spec, random.Random(seed), devices, lanes, again=0.3)
    program = compile_program(placement, spec)
    assert set(program.copy_lanes) == set(program.lanes) - {
        Lane(segment.device, segment.lane) for segment in placement.segments
    }
    for index, step in enumerate(program.steps):
        if step.op != "copy" or step.lane in program.copy_lanes:
            continue
        after = [s for s in program.steps[index + 1 :] if s.lane == step.lane and s.op == "run"]
        if not after:
            continue
        readers = [
            s.name for s in placement.segments if s.device == step.target and step.name in s.inputs
        ]
        assert any(happens_before(program, reader, after[0].name) for reader in readers)


def happens_before(program: Program, first: str, second: str) -> bool:
    """Whether one engine surely ended before another starts: by lanes and events alone."""
    behind: list[set[int]] = []
    last: dict[Lane, int] = {}
    recorded: dict[int, int] = {}
    place = {}
    for index, step in enumerate(program.steps):
        sources = {last.get(step.lane)} | {recorded.get(step.event) if step.op == "wait" else None}
        behind.append(set().union(*({s} | behind[s] for s in sources if s is not None)))
        last[step.lane] = index
        if step.op == "record":
            recorded[step.event] = index
        if step.op == "run":
            place[step.name] = index
    return place[first] in behind[place[second]]


def test_what_has_most_arithmetic_behind_it_is_issued_first_on_a_gpu():
    spec = RELEASED["parnet-s"]
    for placement in (streams(spec, (0, 1, 2)), recompute(spec, (0, 1, 2))):
        runs = [s.name for s in compile_program(placement, spec).steps if s.op == "run"]
        assert runs.index("stream2") < runs.index("stream0")


def test_lane_zero_is_issued_last_where_the_order_is_free():
    """Lane 0 of the host runs in the caller's thread: others must have their work before."""
    program = compile_program(streams(SPECS[3]), SPECS[3], direct=[0])
    runs = [step.name for step in program.steps if step.op == "run"]
    assert runs == ["stem0", "stream0", "stem1", "stream1", "fusion1", "stream2", "head"]


def test_the_image_is_uploaded_once_for_each_device_that_reads_it():
    program = compile_program(PLACEMENTS["recomputed on three devices"](SPECS[4]), SPECS[4])
    uploads = [step.lane.device for step in program.steps if step.op == "upload"]
    assert sorted(uploads) == [0, 1, 2]
    assert program.buffers[0] == (IMAGE, program.main.device)


def test_lanes_are_ranked_by_arithmetic():
    spec = SPECS[3]
    program = compile_program(streams(spec), spec)
    assert program.lanes[0] == program.main


def test_a_segment_that_nobody_needs_is_joined_all_the_same():
    spec = SPECS[2]
    extra = replace(make_segment(spec, "extra", ["stem0"], lane=3), outputs=())
    placement = streams(spec)
    placement = replace(placement, segments=(extra, *placement.segments))
    program = compile_program(placement, spec)
    assert missing_order(program, placement) == []
    joins = [step for step in program.steps if step.op == "wait" and step.lane == program.main]
    assert len(joins) == 2


@pytest.mark.parametrize("streams_", SPECS)
@pytest.mark.parametrize("name", PLACEMENTS)
def test_every_wait_of_the_known_placements_is_needed_and_none_is_missing(streams_, name):
    check_waits(PLACEMENTS[name](SPECS[streams_]), SPECS[streams_])


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(SPECS)),
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.4]),
)
def test_every_wait_of_any_placement_is_needed_and_none_is_missing(
    count, seed, devices, lanes, again
):
    placement = random_placement(SPECS[count], random.Random(seed), devices, lanes, again)
    check_waits(placement, SPECS[count])


def check_waits(placement: Placement, spec) -> None:
    for direct in ((), placement.devices):
        program = compile_program(placement, spec, direct)
        assert missing_order(program, placement) == []
        assert (program.steps[-1].op == "download") is not bool(direct)
        for index in waits(program):
            assert missing_order(without_step(program, index), placement), program.steps[index]
