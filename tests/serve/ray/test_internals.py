"""What is replaced inside Ray: it is there, and back afterwards."""

from __future__ import annotations

import logging
import os

import pytest

pytestmark = pytest.mark.ray
pytest.importorskip("ray", reason="needs Ray Serve: make test-ray")

from ray._private import services, worker  # noqa: E402

from parnet_deploy.serve.ray.internals import errors_in_the_log, groups_of_their_own  # noqa: E402

AT_A_STOP = "Task ServeController.graceful_shutdown failed. Error: killed by `ray.kill`."


def test_errors_of_the_cluster_are_logged_and_not_printed(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = worker.print_to_stdstream
    lines = [AT_A_STOP, "A worker died.\n"]
    with caplog.at_level(logging.WARNING), errors_in_the_log():
        worker.print_to_stdstream(
            {"lines": lines, "pid": "raylet", "is_err": False}, ignore_prefix=False
        )
    assert caplog.messages == ["Ray: A worker died."]
    assert capsys.readouterr().out == ""
    assert worker.print_to_stdstream is printed


def test_what_is_started_is_in_a_group_of_its_own() -> None:
    popen = services.ConsolePopen
    with groups_of_their_own():
        process = services.ConsolePopen(["cat"], stdin=-1)
    try:
        assert os.getpgid(process.pid) == process.pid
    finally:
        process.communicate()
    assert services.ConsolePopen is popen
