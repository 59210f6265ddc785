"""Optional packages that are missing, broken, or fine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parnet_deploy.errors import BackendError, MissingExtraError
from parnet_deploy.extras import import_for


def test_what_is_there_is_imported() -> None:
    assert import_for("json", "cpu") is json


def test_what_is_missing_names_its_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'parnet-deploy\[cpu\]'"):
        import_for("no_such_package_of_anybody", "cpu")


def test_what_is_broken_says_why(tmp_path: Path, monkeypatch) -> None:
    source = "raise ImportError('libgomp.so.1: cannot open shared object file')"
    (tmp_path / "broken_package.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"broken_package: .*libgomp.so.1.*doctor") as found:
        import_for("broken_package", "cpu")
    assert not isinstance(found.value, MissingExtraError)


@pytest.mark.parametrize("kind", ["ImportError", "ModuleNotFoundError"])
def test_a_mistake_of_our_own_keeps_its_traceback(tmp_path: Path, monkeypatch, kind: str) -> None:
    (tmp_path / "mistaken.py").write_text(f"raise {kind}('x', name='parnet_deploy.nothing')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError):
        import_for("mistaken", "cpu")
