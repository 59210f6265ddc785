"""The runtime for programs in C: ``parnet_deploy.h``, its source, and what the source calls here.

The library is built from source against one Python, because it starts or joins that interpreter.
``python -m parnet_deploy.capi --cmake-dir`` says where CMake finds it.
"""

from __future__ import annotations

from pathlib import Path

CMAKE_DIR = Path(__file__).resolve().parent
"""Directory for ``parnet_deploy_DIR`` or ``add_subdirectory``; the header is in its ``include``."""
