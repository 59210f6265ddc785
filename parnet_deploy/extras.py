"""Optional packages: imported when they are needed, and named with their extra if missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import BackendError, MissingExtraError


def import_for(module: str, extra: str) -> Any:
    """Import a module that needs an optional package.

    Raises:
        MissingExtraError: The package is not installed; the message names the extra that has it.
        BackendError: It is installed and cannot be imported, as without a library that it needs.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("parnet_deploy"):
            raise
        raise MissingExtraError(error.name.partition(".")[0], extra) from error
    except ImportError as error:
        if error.name is not None and error.name.startswith("parnet_deploy"):
            raise
        raise BackendError(
            f"module {module}: cannot be imported: {error}. A package that it needs is broken: "
            f"pip install --force-reinstall 'parnet-deploy[{extra}]'; see parnet-deploy doctor."
        ) from error
