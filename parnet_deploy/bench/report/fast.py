"""How fast is it, and is it really faster than the others?"""

from __future__ import annotations

from ...contest.order import LEAST_ROUNDS
from ..result import OURS, YARDSTICK, BenchReport, Interval, Mode, ModeResult
from ..statistics import samples_needed
from .answer import Answer, Mood
from .words import arm_title, is_resnet, listed, ms_text, number_text, ours_of_it, ratio_text

_QUESTION = "How fast is it?"
_EQUAL = 0.01  # what two arms that are the same may differ by
_PACED_DIFFERS = 0.05
_RANDOM = "The ResNet has random weights: time is compared, not accuracy."


def how_fast(report: BenchReport) -> Answer:
    """Say how long a call takes, and how that stands to every other arm."""
    if report["subject"]["simulated"]:
        return Answer(
            question=_QUESTION,
            mood="none",
            text="Not known: the devices are simulated, their times are made up.",
        )
    mode = main_mode(report)
    rivals = comparisons(report, mode)
    if rivals and not tells_apart(report, mode):
        return Answer(
            question=_QUESTION,
            mood="care",
            text=f"{call_text(report, mode)} {_too_few(report, mode)}",
            more=(*_paced(report, mode), *_missing(report)),
        )
    resnets = {name: ratio for name, ratio in rivals.items() if is_resnet(name)}
    stands = {name: standing(ratio) for name, ratio in rivals.items()}
    lead = {**resnets, **{n: r for n, r in rivals.items() if stands[n] != "faster"}}
    others = {name: ratio for name, ratio in rivals.items() if name not in lead}
    if others and not lead:  # the nearest rival is the one that matters
        nearest = max(others, key=lambda name: others[name]["value"])
        lead = {nearest: others.pop(nearest)}
    said = " ".join(f"{compare_text(name, ratio)}." for name, ratio in lead.items())
    found = set(stands.values())
    mood: Mood = "bad" if "slower" in found else "care" if "as fast" in found else "good"
    return Answer(
        question=_QUESTION,
        mood=mood if rivals else "none",
        text=f"{call_text(report, mode)} {said}".strip(),
        more=(
            *_more(report, others),
            *_paced(report, mode),
            *_missing(report),
            *([_RANDOM] if resnets else []),
            *(["Nothing was timed beside it."] if not rivals else []),
        ),
    )


def main_mode(report: BenchReport) -> Mode:
    """The mode that the verdict speaks of: saturated, whose ratios are the surest, if it ran."""
    modes = report["arms"][OURS]["modes"]
    return "saturated" if "saturated" in modes else "paced"


def comparisons(report: BenchReport, mode: Mode) -> dict[str, Interval]:
    """Our time in units of every other arm's. The yardstick is no rival."""
    return {
        name: ours_of_it(arm["modes"][mode]["ratio_to_ours"])
        for name, arm in report["arms"].items()
        if name not in (OURS, YARDSTICK) and mode in arm["modes"]
    }


def tells_apart(report: BenchReport, mode: str) -> bool:
    """Whether there were rounds enough to say that one arm is faster than another."""
    return report["rounds"][mode] >= LEAST_ROUNDS


def standing(ratio: Interval) -> str:
    """Whether we are faster, slower, or as fast within what noise does; of ``ours_of_it``."""
    if ratio["high"] < 1 and ratio["value"] < 1 - _EQUAL:
        return "faster"
    if ratio["low"] > 1 and ratio["value"] > 1 + _EQUAL:
        return "slower"
    return "as fast"


def compare_text(name: str, ratio: Interval) -> str:
    """Faster or slower than an arm, plainly."""
    how = standing(ratio)
    word = "as" if how == "as fast" else "than"
    return f"{how.capitalize()} {word} {arm_title(name)}: {ratio_text(ratio)} of its time"


def call_text(report: BenchReport, mode: Mode) -> str:
    """How long a call takes."""
    ours = report["arms"][OURS]["modes"][mode]
    batch = report["subject"]["batch"]
    what = "A call" if batch == 1 else f"A call with {batch} images"
    return f"{what} takes {_median(ours)} ({_quantiles(ours)})."


def _median(ours: ModeResult) -> str:
    found = ours["quantiles_ms"]["p50"]
    return "an unknown time" if found is None else ms_text(found["value"])


def _quantiles(ours: ModeResult) -> str:
    last = ours["quantiles_ms"]["p99"]
    if last is not None:
        return f"p50; p99 {number_text(last['value'])}"
    return f"p50; p99 needs {samples_needed('p99')} samples, there are {len(ours['samples_ms'])}"


def _too_few(report: BenchReport, mode: Mode) -> str:
    done = report["rounds"][mode]
    count = "one round is" if done == 1 else f"{done} rounds are"
    return f"Whether that is faster than the others is not known: {count} too few."


def _more(report: BenchReport, others: dict[str, Interval]) -> list[str]:
    if not others:
        return []
    ways = ("of the time of", *["of"] * len(others))
    said = listed(
        f"{ratio_text(ratio)} {of} {arm_title(name)}"
        for of, (name, ratio) in zip(ways, others.items(), strict=False)
    )
    return [f"It takes {said}."]


def _paced(report: BenchReport, mode: Mode) -> list[str]:
    """What changes where calls come as in real life."""
    modes, rate = report["arms"][OURS]["modes"], report["rate_hz"]
    if mode == "paced" or "paced" not in modes or rate is None:
        return []
    late = modes["paced"].get("late", 0)
    if late:
        times = "call was" if late == 1 else "calls were"
        return [f"At {rate:g} calls a second {late} {times} due while one still ran."]
    paced, busy = (modes[name]["quantiles_ms"]["p50"] for name in ("paced", mode))
    if paced is None or busy is None or abs(paced["value"] / busy["value"] - 1) < _PACED_DIFFERS:
        return [f"The same at {rate:g} calls a second."] if paced and busy else []
    return [f"At {rate:g} calls a second it takes {ms_text(paced['value'])}."]


def _missing(report: BenchReport) -> list[str]:
    """ResNets that were asked for and could not be had: their question stays open."""
    return [
        f"Whether it is faster than {arm_title(name)} is not known: {why}"
        for name, why in report["left_out"].items()
        if is_resnet(name)
    ]
