"""Options that all verbs share, and how their values are read."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..storage.search import find_deployment
from .render import Output

ENGINES = Path("engines")
DEPLOYMENT_METAVAR = "[DEPLOYMENT]"

Function = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every verb gets: where deployments live and where output goes."""

    root: Path
    output: Output

    def find(self, name: str | None) -> Path:
        """The directory of the deployment that is meant; which one and why goes to stderr.

        Raises:
            DeploymentNotFoundError: There is none, or it is not clear which.
        """
        found = find_deployment(name, self.root)
        if name is None:
            self.output.note(f"using {found.reason}")
        return found.path

    def argument(self, directory: Path) -> str:
        """How the user would name this deployment in the next command."""
        inside = directory.parent == self.root == ENGINES
        return directory.name if inside else str(directory)

    def run_command(self, directory: Path) -> str:
        """The ``run`` command for this deployment; the one written last needs no name."""
        inside = directory.parent == self.root == ENGINES
        return "parnet-deploy run IMAGES" + ("" if inside else f" -d {directory}")


def verb(function: Function) -> Function:
    """Add the options that all verbs have; the function gets them as one ``Common``."""

    @functools.wraps(function)
    def with_common(
        *args: Any, root: Path, as_json: bool, quiet: bool, verbose: int, **more: Any
    ) -> Any:
        output = Output(as_json=as_json, quiet=quiet)
        _log_to(output, quiet=quiet, verbose=verbose)
        return function(Common(root=root, output=output), *args, **more)

    command: Function = with_common
    for option in reversed(_COMMON):
        command = option(command)
    return command


_COMMON: tuple[Callable[[Function], Function], ...] = (
    click.option(
        "--root",
        type=click.Path(file_okay=False, path_type=Path),
        default=ENGINES,
        show_default=True,
        help="Directory of the deployments.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout."),
    click.option("-q", "--quiet", is_flag=True, help="No notes and no progress on stderr."),
    click.option("-v", "--verbose", count=True, help="Log on stderr; -vv logs more."),
)


def deployment_argument(function: Function) -> Function:
    """Let the user name a deployment, as an argument or as ``--deployment``."""

    @functools.wraps(function)
    def with_deployment(*args: Any, named: str | None, deployment: str | None, **more: Any) -> Any:
        if named is not None and deployment is not None:
            raise click.UsageError("Name the deployment once: as an argument or by --deployment.")
        return function(*args, deployment=named or deployment, **more)

    argument = click.argument("named", metavar=DEPLOYMENT_METAVAR, required=False)
    return argument(deployment_option(with_deployment))


def deployment_option(function: Function) -> Function:
    """Let the user name a deployment by ``--deployment``."""
    text = "Name in the root, or a path.  [default: the only one, or the one written last]"
    return click.option("-d", "--deployment", metavar="NAME", help=text)(function)


def numbers_option(
    name: str, kind: Callable[[str], float], *, count: int | None = None, **attributes: Any
) -> Callable[[Function], Function]:
    """An option of comma-separated numbers: ``--gpus 0,1,2``."""

    def read(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
        if text is None:
            return None
        try:
            numbers = tuple(kind(part.strip()) for part in text.split(","))
        except ValueError:
            numbers = ()
        if not numbers or count not in (None, len(numbers)) or min(numbers) < 0:
            example = ",".join(["0.5"] * count) if count else "0,1,2"
            raise click.BadParameter(f"got {text!r}, expected numbers such as {example}.")
        return numbers

    return click.option(name, callback=read, **attributes)


class FiniteRange(click.FloatRange):
    """A range of numbers without NaN, which compares with none of its ends, and infinity."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """See ``click.ParamType``."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"got {value!r}, expected a finite number.", param, ctx)
        return number


class _Handler(logging.Handler):
    """Log lines above the progress display, on stderr."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.log(record.levelname.lower(), self.format(record))


def _log_to(output: Output, *, quiet: bool, verbose: int) -> None:
    """Show the package's own log; other libraries speak only with ``-vv``."""
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    level = logging.ERROR if quiet else levels[min(verbose, 2)]
    package = logging.getLogger(__package__.partition(".")[0])
    package.handlers = [_Handler(output)]
    package.setLevel(level)
    package.propagate = verbose > 1
    logging.getLogger().setLevel(logging.INFO if verbose > 1 else logging.ERROR)
