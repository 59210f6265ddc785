"""The verdict says what the figures say, whatever that is."""

from __future__ import annotations

from typing import Any

import pytest

from parnet_deploy.bench.report.fast import standing
from parnet_deploy.bench.report.provenance import commands
from parnet_deploy.bench.report.tables import cost_rows, latency_rows, split_rows
from parnet_deploy.bench.report.verdict import conclude, verdict
from parnet_deploy.bench.report.words import arm_title
from parnet_deploy.bench.result import OURS, Interval
from parnet_deploy.contest.order import LEAST_ROUNDS
from tests.bench.report.samples import (
    PLAN,
    check,
    make_evidence,
    make_full,
    make_report,
    parity,
    precision_report,
    roofline,
    split,
)


def test_the_usual_case_in_words() -> None:
    right, fast, why, *following = verdict(make_report(), make_evidence())
    assert right.startswith(
        "Is it right? Yes, the answer is unchanged: largest error 3e-7 of 1e-4 allowed, "
        "450 of 450 images equal."
    )
    assert "Fusing was proved to 9.7e-16 in float64." in right
    assert "Eager PyTorch and unfused ONNX Runtime gave the same answer." in right
    assert fast.startswith("How fast is it? A call takes 53.7 ms (p50; p99 ")
    assert "Faster than ResNet-34: 0.79 (0.78 to " in fast
    assert "of the time of eager PyTorch and 0.90 (" in fast
    assert "of unfused ONNX Runtime. The same at 30 calls a second." in fast
    assert fast.endswith("The ResNet has random weights: time is compared, not accuracy.")
    assert why == (
        "Why? 62 % of the time is in the streams. The network runs at 81 % of this machine's "
        "arithmetic peak: little is left but fewer or narrower multiplications. "
        "The slowest part is stream2: 12.4 ms."
    )
    assert [line.partition(" (")[0] for line in following] == [
        "Next: parnet-deploy calibrate -d parnet-s photos/",
        "Next: parnet-deploy serve parnet-s",
    ]


def test_it_needs_no_evidence() -> None:
    found = conclude(make_report())
    assert found.right.mood == "care"
    assert "this plan was not verified yet" in " ".join(found.right.more)
    assert found.steps[0].command == "parnet-deploy verify parnet-s --images photos/"


# Is it right?


def test_a_wrong_arm_is_named() -> None:
    report = make_report()
    report["arms"]["torch"]["check"] = check(error=0.2)
    found = conclude(report, make_evidence())
    assert found.right.mood == "bad"
    assert found.right.text == "No: eager PyTorch differs by 2e-1, 1e-4 is allowed."
    assert found.steps[0].command == "parnet-deploy build parnet-s --rebuild"


def test_a_step_that_failed_is_named() -> None:
    bad = {"plans": {PLAN: [parity("engine all, logits", 0.01)]}}
    found = conclude(make_report(), make_evidence(verify=bad)).right
    assert found.mood == "bad"
    assert found.text == "No: verify found engine all, logits to differ by 1e-2, 1e-4 is allowed."


def test_the_largest_error_is_that_of_any_engine() -> None:
    worse = {"plans": {PLAN: [parity("engine all, logits", 8e-6)]}}
    found = conclude(make_report(), make_evidence(verify=worse)).right
    assert "largest error 8e-6 of 1e-4 allowed." in found.text
    assert "Compared on the stored reference; no real image was." in found.more


def test_images_that_differ_are_counted() -> None:
    images = parity("450 images against the training form", 2e-7, top1_equal=448 / 450)
    found = conclude(make_report(), make_evidence(verify={"plans": {PLAN: [images]}})).right
    assert "448 of 450 images equal" in found.text


def test_another_plan_s_proof_is_not_this_plan_s() -> None:
    other = {"plans": {"another": [parity("450 images against x", 2e-7, top1_equal=1.0)]}}
    found = conclude(make_report(), make_evidence(verify=other)).right
    assert found.mood == "care"
    assert "images" not in found.text


def lower(**changes: Any) -> Any:
    return make_report(subject={"precision": "int8"}, **changes)


def test_lower_precision_is_nearly_right() -> None:
    evidence = make_evidence(**{"precision-int8-cpu": precision_report()})
    found = conclude(lower(), evidence).right
    assert found.mood == "good"
    assert found.text == (
        "Nearly: int8 gives the answer of float32 for 448 of 450 images, accuracy 99.33 % "
        "instead of 99.56 %."
    )


def test_lower_precision_that_was_not_evaluated_is_not_known() -> None:
    evidence = make_evidence(**{"precision-int8-trt": precision_report()})  # of another backend
    found = conclude(lower(), evidence)
    assert found.right.mood == "care"
    assert found.right.text.startswith("Not known: it computes in int8")
    assert any("calibrate" in step.command for step in found.steps)


def test_a_gate_that_does_not_hold_is_told() -> None:
    evidence = make_evidence(**{"precision-int8-cpu": precision_report(passed=False)})
    found = conclude(lower(), evidence).right
    assert found.mood == "bad"
    assert "a gate does not hold: clean agreement" in found.text


# How fast is it?


def test_slower_than_resnet_is_said_plainly() -> None:
    found = conclude(make_report(rivals={"torch": 145.0, "resnet34": 44.0}), make_evidence())
    assert found.fast.mood == "bad"
    assert "Slower than ResNet-34: 1.22 (" in found.fast.text
    assert "Faster than ResNet" not in found.fast.text


def test_a_faster_arm_of_the_same_network_comes_first_and_gives_the_next_step() -> None:
    report = make_report(rivals={"torch": 145.0, "onnxruntime": 40.0}, left_out={})
    found = conclude(report, make_evidence())
    assert "Slower than unfused ONNX Runtime: 1.35 (" in found.fast.text
    assert "eager PyTorch" in found.fast.more[0]
    assert found.steps[0].command == "parnet-deploy build parnet-s --rebuild"
    assert "unfused ONNX Runtime is faster" in found.steps[0].why


@pytest.mark.parametrize(
    ("rival", "plan", "command"),
    [
        ("openvino", "onnxruntime-fp32-auto", "--backend auto"),
        ("mnn", "openvino-fp32-one", "--backend auto"),
        ("ncnn", "auto-fp32-auto", "--backend auto --rebuild"),
        ("mnn-fp32-one", "onnxruntime-fp32-auto", "--rebuild"),
        ("torch", "auto-fp32-auto", "--backend auto --rebuild"),
    ],
)
def test_another_library_that_is_faster_is_there_for_the_taking(rival, plan, command) -> None:
    report = make_report(rivals={rival: 40.0}, left_out={}, subject={"plan": plan})
    steps = conclude(report, make_evidence()).steps
    (step,) = (step for step in steps if f"{arm_title(rival)} is faster" in step.why)
    assert step.command == f"parnet-deploy build parnet-s {command}"


def test_an_arm_in_lower_precision_is_not_said_to_give_the_same_answer() -> None:
    report = make_report(rivals={"torch": 145.0, "openvino-bf16-one": 59.0})
    report["arms"]["openvino-bf16-one"]["precision"] = "bf16"
    assert "Eager PyTorch gave the same answer." in conclude(report, make_evidence()).right.more


@pytest.mark.parametrize(
    ("plan", "backend", "asked"),
    [
        ("auto-fp32-auto", "mixed", "auto"),
        ("auto-fp32-auto", "mnn", "auto"),
        ("mnn-fp32-one", "mnn", "mnn"),
    ],
)
def test_the_command_that_builds_it_again_asks_for_what_was_asked(plan, backend, asked) -> None:
    report = make_report(subject={"plan": plan, "backend": backend})
    assert f"parnet-deploy build parnet-s --backend {asked}" in commands(report, make_evidence())


def test_bfloat16_is_not_sent_to_calibrate() -> None:
    report = make_report(subject={"precision": "bf16", "backend": "openvino"})
    steps = conclude(report, make_evidence()).steps
    assert not any("calibrate" in step.command for step in steps)


def test_engines_that_nothing_looks_into_are_no_overhead() -> None:
    found = split()
    found["rows"].insert(-1, {"stage": "engine", "ms": 400.0, "how": "closed"})
    text = conclude(make_report(split=found, roofline=None)).why.text
    assert text.startswith("88 % of the time is in engines that nothing looks into.")


def test_the_nearest_rival_leads_where_no_resnet_is() -> None:
    found = conclude(make_report(rivals={"torch": 145.0, "onnxruntime": 59.6}), make_evidence())
    assert "Faster than unfused ONNX Runtime: 0.90" in found.fast.text
    assert found.fast.mood == "good"


def test_a_rival_that_is_as_fast_is_not_hidden_behind_one_that_is_slower() -> None:
    found = conclude(make_report(rivals={"torch": 145.0, "onnxruntime": 53.7})).fast
    assert found.mood == "care"
    assert "As fast as unfused ONNX Runtime: 1.00 (" in found.text
    assert "eager PyTorch" not in found.text
    assert "of eager PyTorch" in found.more[0]


def test_calls_that_come_too_fast_are_told() -> None:
    report = make_report()
    report["arms"][OURS]["modes"]["paced"]["late"] = 7
    found = conclude(report).fast
    assert "At 30 calls a second 7 calls were due while one still ran." in found.more
    rows = latency_rows(report, "paced")
    assert rows.heads[-1] == "late"
    assert [row[-1] for row in rows.rows] == ["7", "0", "0", "0"]
    assert "late" not in latency_rows(report, "saturated").heads


def test_ours_stands_first_in_every_order() -> None:
    report = make_report()
    report["arms"] = dict(sorted(report["arms"].items()))
    assert next(iter(report["arms"])) != OURS
    assert latency_rows(report, "paced").rows[0][0] == OURS
    assert cost_rows(report).rows[0][0] == OURS


@pytest.mark.parametrize(
    ("rounds", "said"), [(1, "one round is too few"), (LEAST_ROUNDS - 1, "4 rounds are too few")]
)
def test_too_few_rounds_are_neither_victory_nor_defeat(rounds: int, said: str) -> None:
    report = make_report(rivals={"onnxruntime": 100.0, "openvino": 40.0}, left_out={})
    report["rounds"]["saturated"] = rounds
    found = conclude(report, make_evidence())
    assert found.fast.mood == "care"
    assert said in found.fast.text
    assert "aster than " not in found.fast.text.replace("Whether that is faster than", "")
    assert not any("OpenVINO is faster" in step.why for step in found.steps)
    rows = latency_rows(report, "saturated")
    assert [row[1] for row in rows.rows] == ["", "needs 5 rounds", "needs 5 rounds"]
    assert not any(" to " in cell for row in rows.rows for cell in row)


def test_no_difference_is_no_victory() -> None:
    found = conclude(make_report(rivals={"resnet34": 53.8}), make_evidence()).fast
    assert "As fast as ResNet-34: 1.00 (" in found.text


@pytest.mark.parametrize(
    ("value", "low", "high", "how"),
    [
        (0.8, 0.7, 0.9, "faster"),
        (0.9, 0.7, 1.1, "as fast"),
        (0.995, 0.992, 0.998, "as fast"),
        (1.005, 1.002, 1.008, "as fast"),
        (1.2, 1.1, 1.3, "slower"),
        (1.2, 0.9, 1.5, "as fast"),
    ],
)
def test_standing(value: float, low: float, high: float, how: str) -> None:
    assert standing(Interval(value=value, low=low, high=high)) == how


def test_a_resnet_that_is_missing_leaves_the_question_open() -> None:
    why = "onnx is not installed"
    found = conclude(make_report(rivals={"torch": 145.0}, left_out={"resnet34": why})).fast
    assert f"Whether it is faster than ResNet-34 is not known: {why}" in found.more


def test_alone_it_says_so_and_how_to_compare() -> None:
    found = conclude(make_report(rivals={}), make_evidence())
    assert found.fast.more[-1] == "Nothing was timed beside it."
    assert found.steps[0].command == "parnet-deploy bench parnet-s --vs torch,onnxruntime,resnet34"


def test_the_yardstick_is_no_rival() -> None:
    report = make_report(rivals={"torch": 145.0, "yardstick": 12.0})
    found = conclude(report, make_evidence()).fast
    assert "yardstick" not in " ".join((found.text, *found.more))
    *_, torch, yardstick = latency_rows(report, "saturated").rows
    assert (torch[1] != "", yardstick[1]) == (True, "")


def test_few_calls_tell_no_p99() -> None:
    found = conclude(make_report(count=50), make_evidence()).fast
    assert "(p50; p99 needs 200 samples, there are 50)" in found.text


def test_a_batch_and_one_mode_alone() -> None:
    report = make_report(modes=("paced",), subject={"batch": 4})
    found = conclude(report, make_evidence()).fast
    assert found.text.startswith("A call with 4 images takes 53.7 ms")
    assert "calls a second" not in " ".join(found.more)


def test_a_paced_call_that_takes_longer_is_told() -> None:
    report = make_report()
    paced = report["arms"][OURS]["modes"]["paced"]["quantiles_ms"]
    paced["p50"] = Interval(value=70.0, low=69.0, high=71.0)
    assert "At 30 calls a second it takes 70.0 ms." in conclude(report).fast.more


# Why?


def test_memory_bound_and_far_from_the_peak() -> None:
    slow = conclude(make_report(roofline=roofline(share_of_peak=0.31))).why
    assert slow.text.endswith(
        "at 31 % of this machine's arithmetic peak: the machine could do more."
    )
    memory = conclude(make_report(roofline=roofline(share_of_peak=0.9, bound="memory"))).why
    assert "90 % of this machine's memory bandwidth: little is left but fewer" in memory.text


def test_time_outside_of_the_network_is_told() -> None:
    found = split()
    for row in found["rows"]:
        row["ms"] = {"wait": 20.0, "preprocess": 90.0}.get(row["stage"], row["ms"])
    report = make_report(split=found, roofline=None)
    why = conclude(report, make_evidence()).why
    assert "Preparing a photograph takes another 90.0 ms before the call." in why.more
    found["rows"][0]["ms"] = 6.0
    assert not [text for text in conclude(report).why.more if "Preparing" in text]
    concluded = conclude(report, make_evidence(**{"precision-fp16": {"checks": "odd"}}))
    assert any("is waiting" in text for text in concluded.why.more)


def test_a_profiler_that_takes_longer_than_the_call_explains_nothing() -> None:
    found = split() | {"plain_ms": 12.4}
    report = make_report(split=found)
    why = conclude(report, make_evidence()).why
    assert why.text.startswith("The network runs at 81 %")
    assert why.more[0] == (
        "Where the time goes is not known: looking into a call made it 4.8 times as long."
    )
    assert not [text for text in (why.text, *why.more) if "slowest" in text or "streams" in text]
    assert split_rows(report).caption.endswith("looking into it made it 4.8 times as long")
    alone = conclude(make_report(split=found, roofline=None)).why
    assert alone.text == why.more[0]


def test_nothing_measured_explains_nothing() -> None:
    found = conclude(make_report(split=None, roofline=None)).why
    assert found.text == "Not measured in this run."
    assert conclude(make_report(split=None)).why.text.startswith("The network runs at 81 %")


def test_a_negative_remainder_is_no_share() -> None:
    found = split()
    found["rows"][-1]["ms"] = -4.0
    assert conclude(make_report(split=found)).why.text.startswith(
        "64 % of the time is in the streams"
    )


# What to take care of, and what next


def test_noise_comes_first_and_asks_for_another_run() -> None:
    report, evidence = make_full()
    lines = verdict(report, evidence)
    assert lines[0] == "Take care: Load average 2.9 on 2 cores."
    again = "parnet-deploy bench parnet-s --vs torch,onnxruntime,resnet34,openvino"
    assert lines[4].startswith(f"Next: {again} (again")
    assert lines[5].startswith(
        "Next: parnet-deploy build parnet-s --precision auto (int8-cpu passed"
    )


def test_a_note_on_the_governor_asks_for_nothing() -> None:
    noise = [{"name": "governor", "detail": "powersave, not performance"}]
    found = conclude(make_report(noise=noise), make_evidence())
    assert found.care == ("Powersave, not performance.",)
    assert "bench" not in found.steps[0].command


def test_a_simulation_is_no_measurement() -> None:
    report = make_report(subject={"simulated": True, "backend": "fake"})
    found = conclude(report, make_evidence())
    assert found.care[0].startswith("Simulated devices")
    assert "ms" not in found.fast.text
    assert found.why.text == "Simulated devices explain nothing."
    assert [step.command for step in found.steps] == ["parnet-deploy build parnet-s"]


def test_waiting_asks_for_a_timeline() -> None:
    waits = split()
    waits["rows"][4]["ms"] = 20.0
    evidence = make_evidence(**{"precision-int8-cpu": precision_report()})
    report = make_report(split=waits, subject={"precision": "int8"})
    assert conclude(report, evidence).steps[0].command == "parnet-deploy bench parnet-s --timeline"
    assert (
        "serve" in conclude(make_report(subject={"precision": "int8"}), evidence).steps[0].command
    )


@pytest.mark.parametrize(
    ("name", "word"), [("a b", "'a b'"), ("$(reboot)", "'$(reboot)'"), ("-x", "-d -x")]
)
def test_commands_can_be_copied_whatever_the_name(name: str, word: str) -> None:
    found = conclude(make_report(subject={"name": name}))
    assert found.steps[0].command == f"parnet-deploy verify {word} --images photos/"
