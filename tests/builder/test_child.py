"""A child process and what it says, garbled or not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from parnet_deploy.builder.child import Ended, run_child


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a script as a child; its events, and how it ended."""

    def start(script: str, answer: str | None = None, **options: Any) -> tuple[list[Any], Ended]:
        (tmp_path / "spoken.py").write_text(script, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        events: list[Any] = []

        def on_event(event: dict[str, Any]) -> str | None:
            events.append(event)
            return answer

        return events, run_child("spoken", ["a", "b"], tmp_path, on_event=on_event, **options)

    return start


def test_events_arguments_and_status(run: Any) -> None:
    events, ended = run("import sys; print('{\"n\": 1}'); sys.exit(len(sys.argv))")
    assert events == [{"n": 1}]
    assert ended == Ended(status=3, errors="", timed_out=False)
    assert ended.signal_name is None


def test_lines_that_are_no_events_are_passed_over(run: Any) -> None:
    events, _ = run("print('hello'); print('[1]'); print('{\"n\": 2}'); print('{\"n\":', end='')")
    assert events == [{"n": 2}]


def test_answers_reach_the_child(run: Any) -> None:
    script = "print('{\"n\": 1}', flush=True); import sys; sys.exit(len(sys.stdin.READ()))"
    assert run(script.replace("READ", "readline"), "four")[1].status == 5
    assert run(script.replace("READ", "read"), "")[1].status == 0


def test_answer_to_a_dead_child(run: Any) -> None:
    script = "import os; os.close(0); print('{\"n\": 1}', flush=True); os._exit(4)"
    assert run(script, "x")[1].status == 4


def test_last_words(run: Any) -> None:
    _, ended = run("import sys; sys.stderr.write('one\\n\\n two \\n'); raise SystemExit(1)")
    assert ended.errors == "one | two"


def test_the_package_is_found_in_the_child(run: Any) -> None:
    _, ended = run("import parnet_deploy.errors")
    assert ended.status == 0, ended.errors


def test_signals_have_names() -> None:
    assert Ended(-11, "", False).signal_name == "SIGSEGV"
    assert Ended(-99, "", False).signal_name == "signal 99"
    assert sys.platform != "linux" or Ended(-9, "", False).signal_name == "SIGKILL"
