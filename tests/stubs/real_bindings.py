"""The real Python bindings of TensorRT, imported over libraries that hold nothing.

The bindings import nine C functions (8.6 four C++ ones more); libraries of our own that have them
and return nothing let the bindings load without TensorRT and without a GPU. Nothing can be made
then, but every class, method and enumeration is the real one.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from tests.stubs.compiled import compile_library, missing

ROOT = Path(__file__).parents[2]
BINDINGS = {"8.6": "8.6.1", "10.16": "10.16.1.11", "11.4": "11.4.0.106"}
_SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getPluginRegistry",
    "getNvOnnxParserVersion",
    "initLibNvInferPlugins",
    "_ZN11nvuffparser15createUffParserEv",  # from here on 8.6 only
    "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
    "_ZN14nvcaffeparser117createCaffeParserEv",
    "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
)
_LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin", "nvparsers")


class RealBindings:
    """One version's bindings; Python code runs with them as ``trt`` in a process of its own."""

    def __init__(self, version: str, folder: Path) -> None:
        self.version = version
        self._libraries = folder / version
        self._packages = _packages(version)
        source = "".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in _SYMBOLS)
        major = version.partition(".")[0]
        for name in _LIBRARIES:
            compile_library(source, self._libraries / f"lib{name}.so.{major}")

    def run(self, code: str) -> Any:
        """What the code puts into ``result``, through JSON."""
        script = f"import json\nimport tensorrt_bindings as trt\n{code}\nprint(json.dumps(result))"
        path = os.pathsep.join([str(self._packages), str(ROOT)])
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=self._libraries,
            env={**os.environ, "PYTHONPATH": path, "LD_LIBRARY_PATH": str(self._libraries)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    @cache  # noqa: B019 - as many as there are versions
    def surface(self) -> dict[str, Any]:
        """Names in the module; of a class its attributes, of an enumeration its numbers."""
        return self.run(_SURFACE)


_SURFACE = """
result = {}
for name, value in vars(trt).items():
    if isinstance(value, type) and hasattr(value, "__members__"):
        result[name] = {member: int(number) for member, number in value.__members__.items()}
    elif isinstance(value, type):
        result[name] = sorted(dir(value))
    else:
        result[name] = None
"""


def _packages(version: str) -> Path:
    if platform.system() != "Linux":
        missing("Linux, for the bindings of TensorRT")
    if version == "8.6" and sys.version_info >= (3, 12):
        import pytest

        pytest.skip("needs Python 3.11 or older: the bindings of TensorRT 8.6 have no newer wheel")
    folder = Path(sys.prefix) / "tensorrt" / BINDINGS[version]
    if not (folder / "tensorrt_bindings").is_dir():
        missing(f"the bindings of TensorRT {BINDINGS[version]} (make test-all installs them)")
    return folder
