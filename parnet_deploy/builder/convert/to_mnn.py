"""ONNX to MNN, with the converter of MNN's own wheel.

It is called below ``MNN.tools``, whose command reports each conversion to its vendor's server and
installs packages for that; the function itself opens no connection.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ...errors import EngineBuildError, MissingExtraError
from ...extras import import_for


def convert(graph: Path, output: Path, *, precision: str) -> dict[str, Any]:
    """Write the engine file of one graph; see ``convert.CONVERTERS``.

    The weights stay float32. The converter says True whatever happens, so only its file counts.

    Raises:
        EngineBuildError: It wrote no file.
        MissingExtraError: MNN is not installed.
    """
    if precision != "fp32":
        raise EngineBuildError(f"got precision {precision}, expected fp32.")
    try:
        found = version("MNN")
    except PackageNotFoundError as error:
        raise MissingExtraError("MNN", "mnn") from error
    tools = import_for("_tools", "mnn")
    command = ["mnnconvert", "-f", "ONNX", "--modelFile", str(graph), "--MNNModel", str(output)]
    tools.mnnconvert([*command, "--bizCode", "parnet"])
    if not output.is_file() or not output.stat().st_size:
        raise EngineBuildError("it wrote no file, so the graph has what MNN does not know.")
    return {"mnn": found}
