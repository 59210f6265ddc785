"""What ``parnet_deploy`` offers is what it says."""

from __future__ import annotations

import inspect
import re

import pytest

import parnet_deploy
from parnet_deploy import deployment, errors


def test_every_public_name_exists_and_is_documented() -> None:
    assert parnet_deploy.__all__ == sorted(parnet_deploy.__all__)
    assert {"Runtime", "__version__"} <= set(parnet_deploy.__all__)
    for name in set(parnet_deploy.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(parnet_deploy, name)), name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Rumtime'"):
        _ = parnet_deploy.Rumtime


def test_deployment_offers_what_it_lists() -> None:
    assert deployment.__all__ == sorted(deployment.__all__)
    for name in deployment.__all__:
        assert inspect.getdoc(getattr(deployment, name)), name


def test_every_error_stands_in_the_tree_of_the_docstring_below_its_base() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)(\w+Error)\b", line)
        if match:
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            drawn[match[2]] = path[depth - 1] if depth else "Exception"
    classes = {
        name: thing.__bases__[0].__name__
        for name, thing in vars(errors).items()
        if inspect.isclass(thing)
    }
    assert drawn == classes
    assert len(drawn) > 10


def test_exit_codes() -> None:
    codes = {
        name: thing.exit_code for name, thing in vars(errors).items() if inspect.isclass(thing)
    }
    assert codes.pop("CheckFailedError") == 3
    assert set(codes.values()) == {1}
