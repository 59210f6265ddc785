"""A converter in a child process: what it makes, and every way in which it may fail."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from parnet_deploy.builder.convert import convert
from parnet_deploy.builder.convert.convert import CONVERTERS, convert_graph
from parnet_deploy.errors import BackendError, EngineBuildError, MissingExtraError

HEAD = """
import os, signal, time
from parnet_deploy.errors import DeviceUnavailableError, EngineBuildError
from parnet_deploy.extras import import_for

def convert(graph, output, *, precision):
"""


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Convert with a converter whose body is given; where the engine should be, and the record."""

    def run(body: str) -> tuple[Path, dict[str, Any]]:
        text = HEAD + "".join(f"    {line}\n" for line in body.splitlines())
        (tmp_path / "made_up.py").write_text(text, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setitem(CONVERTERS, "made-up", "made_up")
        output = tmp_path / "stem0.engine"
        record = convert_graph(
            b"a graph", output, backend="made-up", precision="int8", name="stem0"
        )
        return output, record

    return run


def test_the_engine_and_the_record_of_its_making(attempt: Any) -> None:
    output, record = attempt(
        "print('chatter')\n"
        "output.write_bytes(graph.read_bytes() + precision.encode())\n"
        "return {'version': '1.2', 'suffix': output.suffix}"
    )
    assert output.read_bytes() == b"a graphint8"
    assert record == {
        "graph_sha256": hashlib.sha256(b"a graph").hexdigest(),
        "converter": {"version": "1.2", "suffix": ".engine"},
    }


WROTE = "output.write_bytes(b'half')\n"


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (
            WROTE + "os.kill(os.getpid(), signal.SIGSEGV)",
            EngineBuildError,
            "segment stem0, converter of made-up: its process was ended by SIGSEGV",
        ),
        (
            WROTE + "os.write(2, b'no such layer'); os._exit(7)",
            EngineBuildError,
            "its process ended with status 7: no such layer",
        ),
        (
            WROTE + "raise ZeroDivisionError('a bug')",
            EngineBuildError,
            "its process ended with status 1: .*ZeroDivisionError: a bug",
        ),
        (WROTE + "raise EngineBuildError('graph: too odd.')", EngineBuildError, "graph: too odd"),
        (
            WROTE + "raise DeviceUnavailableError('no such CPU.')",
            BackendError,
            "no such CPU",
        ),
        ("return {}", EngineBuildError, "segment stem0: the converter of made-up wrote nothing"),
        (
            "output.write_bytes(b''); return {}",
            EngineBuildError,
            "segment stem0: the converter of made-up wrote nothing",
        ),
        (
            WROTE + "import_for('never_installed_anywhere', 'mnn')",
            MissingExtraError,
            r"never_installed_anywhere: not installed. Run: pip install 'parnet-deploy\[mnn\]'",
        ),
    ],
    ids=[
        "a signal",
        "an exit",
        "a bug",
        "an error of ours",
        "another of ours",
        "nothing written",
        "an empty file",
        "a package is missing",
    ],
)
def test_a_converter_that_fails_leaves_no_engine(
    attempt: Any, tmp_path: Path, body: str, kind: type[BackendError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        attempt(body)
    assert type(caught.value) is kind
    assert not (tmp_path / "stem0.engine").exists()


def test_a_converter_that_hangs_is_ended(
    attempt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "TIMEOUT_S", 1.0)
    with pytest.raises(EngineBuildError, match="converter of made-up: got no answer in 1 s"):
        attempt(WROTE + "time.sleep(600)")
    assert not (tmp_path / "stem0.engine").exists()
