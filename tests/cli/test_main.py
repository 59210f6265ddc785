"""The group: help without weight, exit codes, and what becomes of errors."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from parnet_deploy import __version__
from parnet_deploy.cli.main import VERBS, cli
from parnet_deploy.errors import CheckFailedError, SpecError

HEAVY = ("torch", "onnx", "onnxruntime", "PIL", "safetensors", "numpy")


def raise_from_inspect(monkeypatch, error):
    def fail(*args, **more):
        raise error

    monkeypatch.setattr("parnet_deploy.cli.options.find_deployment", fail)


def test_help_lists_every_verb(invoke):
    result = invoke("--help")
    assert result.exit_code == 0
    assert all(f"  {verb} " in result.stdout for verb in VERBS)


def commands():
    """What can be typed: verbs, and what stands below those that are groups."""
    for verb in VERBS:
        command = cli.get_command(click.Context(cli), verb)
        below = command.commands if isinstance(command, click.Group) else {}
        yield from ([verb, name] for name in below) if below else [[verb]]


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_verb_has_help_with_an_example_and_its_json_keys(invoke, words):
    result = invoke(*words, "--help")
    assert result.exit_code == 0
    assert f"parnet-deploy {' '.join(words)}" in result.stdout.partition("Example")[2]
    assert "JSON: " in result.stdout
    assert {"--json", "--quiet", "--verbose", "--root"} <= set(
        result.stdout.replace(",", " ").split()
    )


def test_help_of_the_group_and_of_every_verb_loads_nothing_heavy(run_process):
    code = f"""
import sys
from click.testing import CliRunner
from parnet_deploy.cli.main import VERBS, cli
runner = CliRunner()
assert runner.invoke(cli, ["--help"]).exit_code == 0
verbs = [m for m in sys.modules if m.startswith("parnet_deploy.cli.")]
assert verbs == ["parnet_deploy.cli.main"], verbs
assert "rich" not in sys.modules
for verb in VERBS:
    assert runner.invoke(cli, [verb, "--help"]).exit_code == 0, verb
print([m for m in {HEAVY} if m in sys.modules])
"""
    done = run_process("-c", code)
    assert done.stdout.strip() == "[]", done.stderr


def test_module_and_version(run_process):
    done = run_process("-m", "parnet_deploy", "--version")
    assert (done.returncode, done.stdout) == (0, f"parnet-deploy {__version__}\n")


@pytest.mark.parametrize(
    ("typed", "hint"), [("fues", "Did you mean fuse?"), ("xyz", "There are: fuse, export")]
)
def test_a_mistyped_verb_is_usage_with_the_right_one(invoke, typed, hint):
    result = invoke(typed)
    assert result.exit_code == 2
    assert hint in result.stderr


def test_a_mistyped_option_is_usage(invoke):
    assert invoke("--jsno").exit_code == 2
    result = invoke("inspect", "--jsn")
    assert result.exit_code == 2
    assert "--json" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"), [(SpecError("a\n b\x1b[2J."), 1), (CheckFailedError("a\n b\x1b[2J."), 3)]
)
def test_our_errors_are_one_line_that_cannot_steer_the_terminal(invoke, monkeypatch, error, code):
    raise_from_inspect(monkeypatch, error)
    result = invoke("inspect")
    assert result.exit_code == code
    assert (result.stdout, result.stderr) == ("", "error: a b?[2J.\n")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "memory: not enough for this"),
        (OSError(errno.ENOSPC, "full", "/x"), "disk: no space left at /x"),
    ],
)
def test_lack_of_memory_or_disk_is_one_line(invoke, monkeypatch, error, text):
    raise_from_inspect(monkeypatch, error)
    result = invoke("inspect")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {text}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError(errno.EIO, "a bug")])
def test_a_bug_keeps_its_traceback(workplace, monkeypatch, error):
    raise_from_inspect(monkeypatch, error)
    result = CliRunner().invoke(cli, ["inspect"])
    assert result.exception is error


def test_an_interrupt_is_130(invoke, monkeypatch):
    raise_from_inspect(monkeypatch, KeyboardInterrupt())
    result = invoke("inspect")
    assert result.exit_code == 130
    assert result.stderr == "interrupted\n"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_reader_that_leaves_early_is_no_error(built, form):
    command = [sys.executable, "-m", "parnet_deploy", "inspect", str(built), "--files", *form]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1
    process.stderr.close()


def test_output_without_unicode_is_still_output(built, run_process, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run_process("-m", "parnet_deploy", "inspect")
    assert done.returncode == 0, done.stderr
    assert "stem0" in done.stdout


def test_verbose_logs_on_stderr_and_json_stays_one_document(built, images, invoke):
    quiet = invoke("run", "--json", images)
    loud = invoke("run", "--json", "-v", images)
    assert json.loads(quiet.stdout) == json.loads(loud.stdout)
    assert "running plan" not in quiet.stderr
    assert "info: " in loud.stderr
    assert "running plan" in loud.stderr
