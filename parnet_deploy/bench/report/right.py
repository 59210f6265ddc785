"""Is it right?"""

from __future__ import annotations

from ...reading import entry, listing, number
from ..result import OURS, BenchReport, Check
from .answer import Answer
from .evidence import Evidence, Proof, is_verified, own_precision, proofs, scores
from .words import arm_title, error_text, exact_share_text, listed

_QUESTION = "Is it right?"
_PAIRED_LIMIT = 1e-4  # of float32 engines; what was compared in float64 has a smaller one


def is_right(report: BenchReport, evidence: Evidence) -> Answer:
    """Say whether the answer of the measured plan is the trained network's."""
    checks = {name: arm["check"] for name, arm in report["arms"].items()}
    wrong = [name for name, check in checks.items() if not check["passed"]]
    if wrong:
        return Answer(
            question=_QUESTION,
            mood="bad",
            text=f"No: {_failed(wrong[0], checks[wrong[0]])}.",
            more=tuple(f"{_failed(name, checks[name])}." for name in wrong[1:]),
        )
    if report["subject"]["precision"] != "fp32":
        return _lower_precision(report, evidence)
    return _unchanged(report, evidence)


def _failed(name: str, check: Check) -> str:
    return (
        f"{arm_title(name)} differs by {error_text(check['error'])}, "
        f"{error_text(check['limit'])} is allowed"
    )


def _unchanged(report: BenchReport, evidence: Evidence) -> Answer:
    check, plan = report["arms"][OURS]["check"], report["subject"]["plan"]
    found = proofs(evidence, plan)
    failed = [proof for proof in found if not proof.passed]
    if failed:
        return Answer(
            question=_QUESTION,
            mood="bad",
            text=f"No: {failed[0].step} found {failed[0].what} to differ by "
            f"{error_text(failed[0].error)}, {error_text(failed[0].limit)} is allowed.",
        )
    same_limit = [proof.error for proof in found if proof.limit == check["limit"]]
    error = max([check["error"], *same_limit])
    images = [proof for proof in found if proof.images is not None]
    text = (
        f"Yes, the answer is unchanged: largest error {error_text(error)} of "
        f"{error_text(check['limit'])} allowed"
    )
    text += "".join(f", {_equal(proof)}" for proof in images[:1]) + "."
    verified = is_verified(evidence, plan)
    return Answer(
        question=_QUESTION,
        mood="good" if verified else "care",
        text=text,
        more=(*_proof_words(found, images, verified=verified), *_others(report)),
    )


def _equal(proof: Proof) -> str:
    count = proof.images or 0
    if proof.top1_equal is None:
        return f"{count} images compared"
    return f"{round(proof.top1_equal * count)} of {count} images equal"


def _proof_words(found: list[Proof], images: list[Proof], *, verified: bool) -> list[str]:
    words = []
    exact = [proof for proof in found if proof.step == "fuse" and proof.limit < _PAIRED_LIMIT / 1e3]
    if exact:
        words.append(f"Fusing was proved to {error_text(exact[0].error)} in float64.")
    if not verified:
        words.append("Only the stored reference was compared: this plan was not verified yet.")
    elif not images:
        words.append("Compared on the stored reference; no real image was.")
    return words


def _others(report: BenchReport) -> list[str]:
    """What is known of the outputs of the other arms in float32."""
    same = [
        arm_title(name)
        for name, arm in report["arms"].items()
        if name != OURS and arm["network"] == "same" and arm["precision"] == "fp32"
    ]
    return [f"{_start(listed(same))} gave the same answer."] if same else []


def _start(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower_precision(report: BenchReport, evidence: Evidence) -> Answer:
    subject, check = report["subject"], report["arms"][OURS]["check"]
    precision = subject["precision"]
    own = own_precision(evidence, subject)
    every = scores(own) if own is not None else {}
    allowed = error_text(check["limit"])
    canary = f"Its canary differs by {error_text(check['error'])}, {allowed} is allowed."
    if own is None or not every:
        return Answer(
            question=_QUESTION,
            mood="care",
            text=f"Not known: it computes in {precision}, and no evaluation of that is here.",
            more=(canary,),
        )
    name, score = next(iter(every.items()))
    gates = listing(own, "checks")
    failed = [str(entry(gate, "text")) for gate in gates if entry(gate, "passed") is not True]
    if failed:
        return Answer(
            question=_QUESTION,
            mood="bad",
            text=f"No: in {precision} a gate does not hold: {failed[0]}.",
            more=(canary,),
        )
    agreement = number(score, "agreement") or 0.0
    images = int(number(score, "images") or 0)
    text = (
        f"Nearly: {precision} gives the answer of float32 for {round(agreement * images)} of "
        f"{images} images"
    )
    accuracy, before = number(score, "accuracy"), number(score, "reference_accuracy")
    if accuracy is not None and before is not None:
        text += f", accuracy {exact_share_text(accuracy)} instead of {exact_share_text(before)}"
    if agreement == 1:
        text = text.replace("Nearly", "Yes", 1)
    return Answer(
        question=_QUESTION,
        mood="good",
        text=f"{text}.",
        more=(f"Every gate holds; images: {name}.", canary, *_others(report)),
    )
