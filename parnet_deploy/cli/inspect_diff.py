"""What ``inspect --diff`` shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from . import render
from .options import Common

if TYPE_CHECKING:
    from ..deployment import Deployment, Integrity
    from ..inspect.diff import Difference

SHOWN = 10  # of each group, unless all are asked for
_NAME, _CUT = 44, 60  # characters of a name, after which it wraps, and of a value
_MARKS = {"added": ("+", "ok"), "removed": ("-", "bad"), "changed": ("~", "warn")}
_HASHED = ("files", "weights")


def show_differences(common: Common, first: Deployment, second: Deployment, *, whole: bool) -> None:
    """Print what differs between two deployments, after both were checked.

    Raises:
        click.exceptions.Exit: With 3 if a file of either is missing or was changed.
    """
    from ..inspect.diff import compare_deployments

    sides = (first, second)
    checked = [side.verify() for side in sides]
    found = compare_deployments(first, second)
    names = ("first", "second")
    document = {
        **{
            name: _side(side, integrity)
            for name, side, integrity in zip(names, sides, checked, strict=True)
        },
        "identical": not found and all(checked),
        "differences": [difference.to_json() for difference in found],
    }
    items: list[RenderableType] = [
        _heading(mark, side) for mark, side in zip("-+", sides, strict=True)
    ]
    if found:
        items += _draw(found, whole=whole)
    bad = [
        f"{side.name}: {'; '.join(_damage(integrity))}"
        for side, integrity in zip(sides, checked, strict=True)
        if not integrity
    ]
    items += ["", *(render.lines(render.FAILED, "bad", bad) or [_verdict(found)])]
    common.output.result(document, *items)
    if bad:
        raise click.exceptions.Exit(3)


def _side(side: Deployment, integrity: Integrity) -> dict[str, Any]:
    return {
        "deployment": str(side.path),
        "name": side.name,
        "written": side.written,
        "digest": side.digest,
        "integrity": {"ok": bool(integrity), **vars(integrity)},
    }


def _heading(mark: str, side: Deployment) -> Text:
    written = side.written[:19].replace("T", " ")
    where = f"{render.printable(side.path)}, written {written} UTC"
    return render.unfolded(Text(f"{mark} ").append(render.heading(side.name, where)))


def _damage(integrity: Integrity) -> Iterator[str]:
    """Files that are not what the manifest says, so that comparing manifests says nothing."""
    for word in ("missing", "changed"):
        names = getattr(integrity, word)
        if names:
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            yield f"{word} {', '.join(names[:4])}{more}"


def _verdict(found: Sequence[Difference]) -> Text:
    if not found:
        return Text(f"{render.OK} identical: they hold the same, made in the same way", style="ok")
    counts = [sum(d.change == change for d in found) for change in _MARKS]
    text = ", ".join(f"{count} {name}" for count, name in zip(counts, _MARKS, strict=True) if count)
    return Text(f"not identical: {text}", style="warn")


def _draw(found: Sequence[Difference], *, whole: bool) -> Iterator[RenderableType]:
    for group in dict.fromkeys(difference.group for difference in found):
        mine = [difference for difference in found if difference.group == group]
        shown = mine if whole else mine[:SHOWN]
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold", max_width=_NAME)
        grid.add_column(overflow="fold")
        for difference in shown:
            grid.add_row(
                Text(*_MARKS[difference.change]),
                Text(render.printable(difference.name)),
                Text(render.printable(_values(difference))),
            )
        yield from ("", Text(f"{group}: {len(mine)}", style="bold"), grid)
        if len(mine) > len(shown):
            rest = f"  and {len(mine) - len(shown)} more; --files lists all"
            yield Text(rest, style="key")


def _values(difference: Difference) -> str:
    """Before and after, hashes cut short; of what has fields only those that differ."""
    before, after = difference.before, difference.after
    if isinstance(before, dict) and isinstance(after, dict):
        return ", ".join(_fields(before, after))
    short = _hash if difference.group in _HASHED else _short
    if difference.change != "changed":
        return short(after if difference.change == "added" else before)
    text = _change(before, after, short)
    return text if difference.detail is None else f"{text}, {difference.detail}"


def _fields(before: Mapping[str, Any], after: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Each field that differs, those of fields too, with both of its values."""
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _fields(old, new, f"{above}{name}.")
        elif old != new:
            yield f"{above}{name} {_change(old, new)}"


def _change(before: Any, after: Any, short: Callable[[Any], str] | None = None) -> str:
    """Both values; in full where they look the same otherwise."""
    pair = [(short or _short)(value) for value in (before, after)]
    if pair[0] == pair[1]:
        pair = [json.dumps(value) for value in (before, after)]
    return render.change(*pair)


def _hash(value: Any) -> str:
    return str(value)[:8]


def _short(value: Any) -> str:
    """A value on one line: numbers with three digits that count, hashes and long texts cut.

    Of a record its plain fields that say something.
    """
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        plain = {k: v for k, v in value.items() if v is not None and not isinstance(v, dict)}
        return ", ".join(f"{name} {_short(found)}" for name, found in plain.items()) or "nothing"
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return text[:8]
    return text if len(text) <= _CUT else f"{text[:_CUT]}…"
