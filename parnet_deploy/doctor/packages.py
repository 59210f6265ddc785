"""The packages that verbs and backends need, by the extra that installs them."""

from __future__ import annotations

EXTRAS: dict[str, tuple[str, ...]] = {
    "": ("numpy", "click", "rich"),
    "cpu": ("onnxruntime|onnxruntime-gpu",),
    "export": ("torch", "onnx", "onnxscript", "safetensors"),
    "images": ("pillow",),
    "openvino": ("openvino",),
    "mnn": ("MNN",),
    "ncnn": ("ncnn",),
    "serve": (
        "uvicorn",
        "httptools",
        "uvloop",
        "grpcio",
        "protobuf",
        "orjson",
        "prometheus-client",
    ),
}
"""Packages by the extra that installs them; "" is what is always there. Of "a|b" one will do."""

HOST_ENGINES = ("openvino", "MNN", "ncnn")
"""Other engines of the CPU, beside ONNX Runtime; each has an extra of its own."""

DISPENSABLE = ("uvloop", *HOST_ENGINES)
"""Packages without which everything works."""

TENSORRT = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
"""Names under which TensorRT is installed."""
