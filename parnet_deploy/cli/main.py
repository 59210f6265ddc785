"""The command group: verbs loaded when used, and what becomes of errors.

Exit codes: 0 ok; 1 an error of ours, one line on stderr; 2 usage; 3 a check failed; 130
interrupted. Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import sys
import warnings
from importlib import import_module
from typing import Any, NoReturn

import click

from .. import __version__
from ..errors import ParnetDeployError

PROGRAM = "parnet-deploy"

VERBS = {
    "fuse": "Fuse a trained checkpoint and prove that the answer did not change.",
    "export": "Write one proved ONNX graph per part of the network.",
    "calibrate": "Measure ranges on images; make and check graphs in lower precision.",
    "build": "Build the engines for this machine; take the fastest placement.",
    "verify": "Hold the built engines against the trained network again.",
    "run": "Classify images.",
    "bench": "Time the deployment beside other ways to run the same network.",
    "serve": "Answer over the network: REST and gRPC, Open Inference Protocol v2.",
    "export-triton": "Write a model repository for a Triton server, or KServe.",
    "deployment": "Sign a deployment, or check who has: keygen, sign, verify.",
    "inspect": "Show what is in a deployment, and whether it is intact.",
    "doctor": "Show what this machine can run, and how to get the rest.",
    "demo": "The whole job on a small trained ParNet and real images.",
}
"""Each verb with its line in ``--help``; the module of the same name holds its ``command``.

A dash in the verb is an underscore in the module.
"""

INTERRUPTED = 130

_EPILOG = """\b
First steps:
  parnet-deploy demo              everything at once, on real images
  parnet-deploy fuse model.pt     your checkpoint -> engines/model
  parnet-deploy build             engines for this machine
  parnet-deploy run photos/       the answers
"""


class VerbGroup(click.Group):
    """Imports a verb's module only when the verb is used, and maps errors to exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order in which they are used."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        if cmd_name not in VERBS:
            return None
        module = cmd_name.replace("-", "_")
        command: click.Command = import_module(f".{module}", __package__).command
        command.name = cmd_name  # the function's, "command", says nothing in the documentation
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Answer a mistyped verb with the one that was meant."""
        name = args[0]
        if name not in VERBS and not name.startswith("-"):
            near = difflib.get_close_matches(name, VERBS, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(VERBS)}."
            raise click.UsageError(f"No such command {name!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb."""
        _quieten_libraries()
        try:
            return super().invoke(ctx)
        except ParnetDeployError as error:
            _say(str(error))
            raise click.exceptions.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _leave_quietly()
        except (MemoryError, OSError) as error:
            lack = _lack(error)
            if lack is None:
                raise
            _say(lack)
            raise click.exceptions.Exit(1) from error


def _say(message: str) -> None:
    """One line on stderr, whatever is in the message."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(message.split()))
    click.echo(f"{click.style('error:', fg='red', bold=True)} {text}", err=True)


def _quieten_libraries() -> None:
    """Before torch and ONNX Runtime are imported: no chatter, and no threads that spin.

    A pool that spins takes the cores of what is timed beside it.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):  # a terminal without Unicode gets question marks
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _leave_quietly() -> NoReturn:
    """Whoever read our output has left: nothing to say, and nothing to flush at exit."""
    with contextlib.suppress(OSError, ValueError):  # not a real file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise click.exceptions.Exit(1)


def _lack(error: MemoryError | OSError) -> str | None:
    """What to say of memory or a disk that is full, which is no bug; None of any other error."""
    if isinstance(error, MemoryError) or error.errno == errno.ENOMEM:
        return "memory: not enough for this. Free some, or use a smaller --batch."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" at {error.filename}" if error.filename else ""
        return f"disk: no space left{where}; nothing was published. Free some, and run again."
    return None


@click.group(
    cls=VerbGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def cli() -> None:
    """Lowest-latency inference for trained ParNet weights, with proof of an unchanged answer.

    A deployment is one directory, engines/NAME, that holds everything about one model. Without a
    name, commands take the only one, or the one written last, and say which.
    """


def main() -> None:
    """Entry point of the console script."""
    cli(prog_name=PROGRAM)
