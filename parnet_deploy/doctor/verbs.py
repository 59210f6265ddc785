"""What each verb needs, and so which of them run here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .finding import Finding
from .packages import DISPENSABLE, EXTRAS, HOST_ENGINES, TENSORRT
from .versions import installed

GROUP = "verbs"

_CPU = ("onnxruntime", "onnxruntime-gpu", *TENSORRT)
_TRAINED = tuple(((name,), "export") for name in EXTRAS["export"])
_SERVER = tuple(((name,), "serve") for name in EXTRAS["serve"] if name not in DISPENSABLE)
_PROOF, _IMAGES = (_CPU, "cpu"), (("pillow",), "images")
_ENGINE = ((*_CPU, *HOST_ENGINES), "cpu")

NEEDS: Mapping[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "fuse": _TRAINED,
    "export": (*_TRAINED, _PROOF),
    "calibrate": (*_TRAINED, _PROOF, _IMAGES),
    "build": (*_TRAINED, _PROOF),
    "verify": ((("onnx",), "export"), _ENGINE),
    "run": (_ENGINE, _IMAGES),
    "bench": (_ENGINE,),
    "serve": (_ENGINE, *_SERVER),
    "serve --ray": (_ENGINE, (("ray",), "ray"), *_SERVER),
    "export-triton": (_ENGINE,),
    "deployment": ((("cryptography",), "sign"),),
}
"""For each verb: packages, one of which must be there, and the extra that installs it."""

OPTIONAL = ("serve --ray", "deployment")
"""Verbs that most people never need: what they lack is not counted as missing."""


def examine_verbs(machine: Mapping[str, Any], gpus: int) -> Iterator[Finding]:
    """For each verb whether it runs here, and which limits it has on this machine."""
    for verb, needs in NEEDS.items():
        lacking = [(names, extra) for names, extra in needs if not any(map(installed, names))]
        if lacking:
            names = ", ".join(names[0] for names, _ in lacking)
            extras = ",".join(dict.fromkeys(extra for _, extra in lacking))
            yield Finding(
                group=GROUP,
                name=verb,
                status="absent" if verb in OPTIONAL else "missing",
                detail=f"does not run here: {names} not installed",
                fix=f"pip install 'parnet-deploy[{extras}]'",
            )
            continue
        yield Finding(group=GROUP, name=verb, status="ok", detail=_limits(verb, machine, gpus))


def _limits(verb: str, machine: Mapping[str, Any], gpus: int) -> str:
    isa, cores = machine["isa"], machine["cores_usable"]
    if verb == "calibrate":
        return f"runs here; INT8 on this CPU: {int8_text(isa)}"
    if verb == "build":
        where = f"GPUs {', '.join(map(str, range(gpus)))}" if gpus else "the CPU"
        more = [name.lower() for name in HOST_ENGINES if installed(name)]
        auto = f"; --backend auto also measures {', '.join(more)}" if more else ""
        return f"runs here, for {where}{auto}; --backend fake tries placements on any GPUs"
    if verb == "bench":
        return f"runs here; beside {_arms()}"
    if verb in ("run", "serve"):
        return f"runs here, on {f'{gpus} GPUs or ' if gpus else ''}{cores} cores"
    return "runs here"


def int8_text(isa: list[str]) -> str:
    """How INT8 runs with these instruction sets."""
    if {"avx512_vnni", "avx_vnni", "amx_int8"} & set(isa):
        return "8-bit weights (VNNI or AMX)"
    if "avx2" in isa:
        return "7-bit weights, for products of 8 bits saturate without VNNI"
    return "possible, and no faster than float32 is to be expected"


def _arms() -> str:
    found = [name.lower() for name in ("torch", *HOST_ENGINES) if installed(name)]
    if installed("onnx") and any(map(installed, ("onnxruntime", "onnxruntime-gpu"))):
        found.insert(0, "ResNets")
    return ", ".join(found) or "nothing else: torch, or onnx and onnxruntime, are not installed"
