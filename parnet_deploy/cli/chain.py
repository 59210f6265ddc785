"""What verbs share below the surface: heavy modules when needed, and earlier steps if missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..deployment import Deployment
from ..errors import MissingExtraError
from .render import Output

_PACKAGES = {"PIL": "pillow"}  # where the package has another name than its module


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Around imports that need an optional package.

    Raises:
        MissingExtraError: A package of the extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("", "parnet_deploy"):
            raise
        raise MissingExtraError(_PACKAGES.get(module, module), extra) from error


def ensure_exported(directory: Path, output: Output) -> bool:
    """Run ``export`` if the deployment has none; whether it ran."""
    if "export" in Deployment.open(directory).steps:
        return False
    output.note("export is missing: running it first")
    with output.progress("export") as report:
        report("loading PyTorch")
        with needs("export"):
            from ..export.export_step import export_to_deployment
        result = export_to_deployment(directory, on_part=report)
    output.note(f"exported {len(result.report['parts'])} parts for {result.report['input_size']}")
    return True


def ensure_built(
    directory: Path, output: Output, *, backend: str | None = None, placement: str = "auto"
) -> bool:
    """Run ``build`` if the deployment has no plan (of this backend); whether it ran.

    Raises:
        BackendError: There is no backend of this name.
    """
    from ..runtime.backend import backend_rank

    if backend is not None:
        backend_rank(backend)  # a typo is answered with the names
    plans = Deployment.open(directory).plans.values()
    if any(backend in (None, plan.get("backend")) for plan in plans):
        return False
    ensure_exported(directory, output)
    which = f" for backend {backend}" if backend is not None and plans else ""
    output.note(f"no engines{which} yet: running build first")
    with output.progress("build") as report:
        with needs("export"):
            from ..builder.build import BuildOptions, build_to_deployment
        options = BuildOptions(backend=backend, placement=placement)
        result = build_to_deployment(directory, options, on_stage=report)
    output.note(f"built plan {result.report['plan']}")
    return True
