"""Which deployments there are, and whether they run on this machine."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from ..deployment import Deployment
from ..errors import ParnetDeployError
from ..runtime.choose import order_plans, read_plan
from ..runtime.session import Runtime
from ..signing.sign import Signed, examine_signature
from .finding import Finding

GROUP = "deployments"


def examine_deployments(
    engines: Path, *, deep: bool = False, unusable: Collection[str] = ()
) -> Iterator[Finding]:
    """One finding for each deployment in a directory.

    Args:
        engines: The directory; need not exist.
        deep: Check every file, and open every plan with its canary, which takes seconds each.
        unusable: Backends that cannot be loaded; their plans are not opened.
    """
    for manifest in sorted(engines.glob("*/deployment.json")):
        yield _examine(manifest.parent, deep=deep, unusable=unusable)


def _examine(directory: Path, *, deep: bool, unusable: Collection[str]) -> Finding:
    name = directory.name
    try:
        opened = Deployment.open(directory)
        plans = order_plans(opened) if opened.plans else ()
    except ParnetDeployError as error:
        return _bad(name, str(error), f"parnet-deploy inspect {name}")
    signed = examine_signature(opened)
    if signed.required and signed.state != "trusted":
        return _bad(name, signed.detail, f"parnet-deploy deployment sign {name} --key PRIVATE.pem")
    if not plans:
        return Finding(
            group=GROUP,
            name=name,
            status="absent",
            detail="no engines yet",
            fix=f"parnet-deploy build {name}",
        )
    if not deep:
        out = [f"{key}: {text}" for key in plans if (text := _lacking(opened, key, unusable))]
        if len(out) == len(plans):
            return _bad(name, "; ".join(out), f"parnet-deploy build {name}")
        count = f"{len(plans)} plans" if len(plans) > 1 else "one plan"
        passed_over = "".join(f"; {text}" for text in out)
        return Finding(
            group=GROUP,
            name=name,
            status="ok",
            detail=f"{count}{passed_over}; {_signed_text(signed)}; --deep opens what is there",
        )
    integrity = opened.verify()
    if not integrity:
        bad = ", ".join(integrity.missing + integrity.changed)
        return _bad(name, f"missing or changed: {bad}", f"parnet-deploy inspect {name}")
    runs, fails = [], []
    for key in plans:
        lacking = _lacking(opened, key, unusable)
        if lacking:  # to open it could crash or hang
            fails.append(f"{key}: {lacking}")
            continue
        try:
            with Runtime.open(directory, plan=key):
                runs.append(key)
        except ParnetDeployError as error:
            fails.append(f"{key}: {error}")
    if not runs:
        return _bad(name, "; ".join(fails), f"parnet-deploy build {name}")
    detail = f"runs here, its canary answered as when it was built: {', '.join(runs)}"
    detail += f"; {_signed_text(signed)}"
    if fails:
        return _bad(name, f"{detail}; {'; '.join(fails)}", f"parnet-deploy build {name}")
    return Finding(group=GROUP, name=name, status="ok", detail=detail)


def _lacking(opened: Deployment, key: str, unusable: Collection[str]) -> str:
    """Which backends of a plan cannot be loaded here; empty if none, or if it cannot be read."""
    try:
        found = set(read_plan(opened, key).plan.homes.values())
    except ParnetDeployError:
        found = {str(opened.plans[key].get("backend"))}
    names = sorted(found & set(unusable))
    return f"backend {', '.join(names)} cannot be loaded here" if names else ""


def _signed_text(signed: Signed) -> str:
    by = "" if signed.key is None else f" by {signed.key}"
    return {"trusted": f"signed{by}", "unchecked": f"signed{by}, unchecked"}.get(
        signed.state, signed.state
    )


def _bad(name: str, detail: str, fix: str) -> Finding:
    return Finding(group=GROUP, name=name, status="warning", detail=detail, fix=fix)
