"""The backends on ONNX Runtime: the CPU, and CUDA.

ONNX Runtime's telemetry is switched off before it is imported, unless the user has decided
otherwise: a robot must not write or send events while it infers.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
