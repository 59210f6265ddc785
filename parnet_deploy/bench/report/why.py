"""Why does it take that long?"""

from __future__ import annotations

from ..result import BenchReport, Roofline, Split
from .answer import Answer
from .words import ms_text, share_text

_QUESTION = "Why?"
_MUCH = 0.6  # of what the machine can do
_LARGE = 0.15  # of a call: worth a word
_DISTORTED = 1.5  # longer than this under the profiler, and its shares are the profiler's own
_PLACES = {
    "copy in": "goes into copying the image in",
    "stems": "is in the stems",
    "streams": "is in the streams",
    "wait": "is waiting: for other streams, or to be launched",
    "fusion": "is in the fusion blocks",
    "head": "is in the head",
    "copy out": "goes into copying the answer out",
    "engine": "is in engines that nothing looks into",
    "other": "is outside of the network: Python, and what could not be assigned",
}


def why_so(report: BenchReport) -> Answer:
    """Say where the time goes, and how much of it the machine could save."""
    if report["subject"]["simulated"]:
        return Answer(question=_QUESTION, mood="none", text="Simulated devices explain nothing.")
    split, roofline = report["split"], report["roofline"]
    shares = {} if split is None else split_shares(split)
    if split is None or not shares:
        text = "Not measured in this run." if roofline is None else _limit_text(roofline)
        return Answer(question=_QUESTION, mood="none", text=text)
    largest = max(shares, key=lambda stage: shares[stage])
    limit = [] if roofline is None else [_limit_text(roofline)]
    longer = distortion(split)
    if longer is None:
        where = _PLACES.get(largest, f"is in {largest}")
        text = " ".join([f"{share_text(shares[largest])} of the time {where}.", *limit])
        more = [*_also(shares, largest), *_slowest_part(split)]
    else:
        where = "Where the time goes is not known"
        text, *more = [*limit, f"{where}: looking into a call made it {longer:.1f} times as long."]
    return Answer(question=_QUESTION, mood="none", text=text, more=(*more, *_before(split)))


def distortion(split: Split) -> float | None:
    """How many times as long a call took while it was looked into; None where it hardly matters."""
    longer = split["whole_ms"] / split["plain_ms"] if split["plain_ms"] else 0.0
    return longer if longer > _DISTORTED else None


def split_shares(split: Split) -> dict[str, float]:
    """Each stage's share of the call; a stage of negative time (a remainder) counts as none."""
    inside = [row for row in split["rows"] if row["stage"] != "preprocess"]  # comes before the call
    total = sum(max(row["ms"], 0.0) for row in inside)
    if not total:
        return {}
    return {row["stage"]: max(row["ms"], 0.0) / total for row in inside}


def stage_share(shares: dict[str, float], stage: str) -> str:
    """A share as text; what comes before the call has none."""
    return share_text(shares[stage]) if stage in shares else ""


def _limit_text(roofline: Roofline) -> str:
    share, bound = roofline["share_of_peak"], roofline["bound"]
    what = "arithmetic peak" if bound == "arithmetic" else "memory bandwidth"
    start = f"The network runs at {share_text(share)} of this machine's {what}"
    if share < _MUCH:
        return f"{start}: the machine could do more."
    if bound == "arithmetic":
        return f"{start}: little is left but fewer or narrower multiplications."
    return f"{start}: little is left but fewer or narrower numbers to move."


def _also(shares: dict[str, float], largest: str) -> list[str]:
    """Time that is not spent in the network, where it is much."""
    outside = ("wait", "other")
    return [
        f"{share_text(shares[stage])} {_PLACES[stage]}."
        for stage in outside
        if stage != largest and shares.get(stage, 0.0) >= _LARGE
    ]


def _before(split: Split) -> list[str]:
    """What is done to an image before the call, where that is much."""
    return [
        f"Preparing a photograph takes another {ms_text(row['ms'])} before the call."
        for row in split["rows"]
        if row["stage"] == "preprocess" and row["ms"] >= _LARGE * split["plain_ms"]
    ]


def _slowest_part(split: Split) -> list[str]:
    if not split["parts"]:
        return []
    slowest = max(split["parts"], key=lambda part: part["ms"])
    return [f"The slowest part is {slowest['part']}: {ms_text(slowest['ms'])}."]
