"""The table of placements that a build tried, and the sentence that says why one was taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from . import render

Row = Mapping[str, Any]

_NAMES = {
    "one": "One engine",
    "one-aux": "One engine with auxiliary streams",
    "streams": "An engine per stream",
    "recompute": "An engine per stream with its own stems",
    "chain": "Engines one after the other",
}
_PREDICTED = (
    "Predicted: by multiply-accumulates, with one engine at a time on a device and free copies."
)


def draw_measured(measured: Mapping[str, Any]) -> list[RenderableType]:
    """What was tried, what was left out and why, the bound, and why the winner won."""
    rows: Sequence[Row] = measured["candidates"]
    on_devices = any(row["predicted"] for row in rows)
    drawn: list[RenderableType] = [render.spaced(_table(rows, on_devices)), ""]
    if "note" in measured:
        drawn.append(Text(f"{measured['note']}.", style="warn"))
    else:
        drawn.append(why(rows))
    if on_devices:
        drawn += [_bound(measured["bound"]), Text(_PREDICTED, style="key")]
    out = [f"{label(row)} was left out: {row['left_out']}" for row in rows if "left_out" in row]
    return [*drawn, *([""] if out else []), *render.lines("!", "warn", out)]


def why(rows: Sequence[Row]) -> str:
    """One sentence: why this placement."""
    chosen = next(row for row in rows if row["chosen"])
    measured = [row for row in rows if "ratio" in row]
    if len(rows) == 1:
        return f"{label(chosen)}: the only placement that was to be measured."
    if len(measured) == 1:
        return f"{label(chosen)}: the only placement that could be built and run."
    if chosen is measured[0]:
        return f"{label(chosen)}: it is the simplest, and no other was clearly faster."
    ratio, base = chosen["ratio"], label(measured[0])
    return (
        f"{label(chosen)}: it takes {ratio['median']:.2f} of the time of "
        f"{base[0].lower()}{base[1:]}, measured in turns "
        f"(95 % interval {ratio['low']:.2f} to {ratio['high']:.2f})."
    )


def label(row: Row) -> str:
    """A placement in words."""
    name = _NAMES.get(row["placement"], row["placement"])
    if row.get("precision", "fp32") != "fp32":
        name = f"{name} in {row['precision']}"
    if row.get("backend"):
        name = f"{name} with {_backend(row)}"
    if row["predicted"]:
        plural = "s" if len(row["devices"]) > 1 else ""
        return f"{name} on device{plural} {_devices(row)}"
    cores = _cores(row)
    return f"{name} on {cores} core{'' if cores == '1' else 's'}"


def _table(rows: Sequence[Row], on_devices: bool) -> RenderableType:
    where = ("devices", ">aux") if on_devices else (">cores",)
    timed = any("ratio" in row for row in rows)
    differ = [key for key in ("backend", "precision") if len({row.get(key) for row in rows}) > 1]
    tail = "backend" not in differ  # else the table is wider than a terminal; p99 is in build.json
    names = (">p50", *((">p99",) if tail else ()), ">ratio", ">95 % interval")
    figures = names if timed else ()
    predicted = (">predicted",) if on_devices else ()
    found = render.table(*differ[:1], "placement", *where, *figures, *predicted, "")
    for row in rows:
        if "left_out" in row:
            mark = Text(render.FAILED, style="bad")
        else:
            mark = Text(render.OK if row["chosen"] else "", style="ok")
        found.add_row(
            *([", ".join(str(row[key]) for key in differ)] if differ else ()),
            row["placement"],
            *((_devices(row), str(row["aux_streams"] or "")) if on_devices else (_cores(row),)),
            *(_figures(row, tail=tail) if timed else ()),
            *([f"{row['predicted']['ratio']:.2f}"] if on_devices else ()),
            mark,
        )
    return found


def _figures(row: Row, *, tail: bool) -> tuple[str, ...]:
    if "ratio" not in row:
        return ("", *([""] if tail else ()), "", "")
    ratio = row["ratio"]
    return (
        render.ms_text(row["median_ms"]),
        *([render.ms_text(row["p99_ms"])] if tail else ()),
        f"{ratio['median']:.2f}",
        "" if ratio["low"] == ratio["high"] else f"{ratio['low']:.2f} to {ratio['high']:.2f}",
    )


def _bound(bound: Mapping[str, Any]) -> Text:
    """What cannot be beaten by arithmetic."""
    reason = {
        "path": f"the longest way is {render.ARROW.join(bound['parts'])}",
        "devices": "so many devices share all of the arithmetic",
    }
    text = f"No placement here can take less than {bound['ratio']:.2f} ({bound['speedup']:.2f}x)"
    return Text(f"{text} by arithmetic: {reason[bound['by']]}.", style="key")


def _devices(row: Row) -> str:
    return ",".join(map(str, row["devices"]))


def _backend(row: Row) -> str:
    """Its backend; of a mix, which engines run on which, and what changes hands between them."""
    if "backends" not in row:
        return str(row["backend"])
    homes: dict[str, list[str]] = {}
    for segment, backend in row["backends"].items():
        homes.setdefault(backend, []).append(segment)
    mix = "; ".join(f"{', '.join(segments)} on {name}" for name, segments in homes.items())
    count = row["conversions"]
    return f"{mix} ({count} tensor{'' if count == 1 else 's'} between backends)"


def _cores(row: Row) -> str:
    return "all" if row["threads"] is None else str(row["threads"])
