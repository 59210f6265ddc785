"""Parameters of requests, tensors and outputs: what they may be, and those that mean something.

The same rules on both wires. What is unknown is kept and does nothing, as on Triton; ``sequence_*``
is among that, because no model here keeps a state from one request to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from .checks import check_text
from .request import Parameter
from .wording import refuse, shown

MAX_PARAMETERS = 64

_SHARED_MEMORY = "shared_memory_"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestParameters:
    """The parameters of a whole request; the fields are those of ``InferRequest``."""

    binary_default: bool = False
    priority: int = 0
    timeout_us: int = 0
    rest: Mapping[str, Parameter] = field(default_factory=dict)


def of_request(found: Mapping[str, Parameter]) -> RequestParameters:
    """What the parameters of a request say."""
    if not found:
        return RequestParameters()
    rest = dict(found)
    where = "the request"
    return RequestParameters(
        binary_default=_flag(where, "binary_data_output", rest.pop("binary_data_output", False)),
        priority=_whole_number(where, "priority", rest.pop("priority", 0)),
        timeout_us=_whole_number(where, "timeout", rest.pop("timeout", 0)),
        rest=rest,
    )


def of_output(
    where: str, found: Mapping[str, Parameter], *, binary_default: bool
) -> tuple[int, bool]:
    """How many classes an output is asked for (0: its values), and whether raw.

    An output's own ``binary_data`` goes before the request's ``binary_data_output``.
    """
    if not found:
        return 0, binary_default
    refuse_shared_memory(where, found)
    classes = _whole_number(where, "classification", found.get("classification", 0))
    return classes, _flag(where, "binary_data", found.get("binary_data", binary_default))


def binary_size(where: str, found: Mapping[str, Parameter]) -> int | None:
    """How many raw bytes an input has behind the JSON; None: it is in the JSON."""
    size = found.get("binary_data_size")
    return None if size is None else _whole_number(where, "binary_data_size", size)


def refuse_shared_memory(where: str, found: Mapping[str, Parameter]) -> None:
    """Refuse a tensor that is not in the request but in a memory region of this machine."""
    for name in found:
        if name.startswith(_SHARED_MEMORY):
            refuse(
                f"Parameter {shown(name)} of {where}",
                got="shared memory",
                expected="the tensor in the request or the answer itself",
                step="This server maps no memory; leave it out",
                kind="not-offered",
            )


def check_parameters(where: str, found: object) -> Mapping[str, Parameter]:
    """Parameters as JSON has them, if every value is one that the protocol knows."""
    if not isinstance(found, dict):
        step = "Leave them out if there are none"
        refuse(f"Parameters of {where}", got=shown(found), expected="an object", step=step)
    check_parameter_number(where, len(found))
    for name, value in found.items():
        check_text(f"Name of a parameter of {where}", name)
        if isinstance(value, str):
            check_text(f"Parameter {shown(name)} of {where}", value)
        elif not isinstance(value, (bool, int, float)):
            _refuse(where, name, value, "true, false, a number or a text")
    return found


def check_parameter_number(where: str, found: int) -> None:
    """How many parameters there are, before any is looked at."""
    if found > MAX_PARAMETERS:
        expected = f"at most {MAX_PARAMETERS}"
        refuse(f"Parameters of {where}", got=f"{found}", expected=expected, step="Send fewer")


def _flag(where: str, name: str, value: Parameter) -> bool:
    if not isinstance(value, bool):
        _refuse(where, name, value, "true or false")
    return value


def _whole_number(where: str, name: str, value: Parameter) -> int:
    if type(value) is not int or value < 0:
        _refuse(where, name, value, "a whole number, not negative")
    return value


def _refuse(where: str, name: str, value: object, expected: str) -> NoReturn:
    what = f"Parameter {shown(name)} of {where}"
    refuse(what, got=shown(value), expected=expected, step="Correct it or leave it out")
