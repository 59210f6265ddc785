"""Write the README's table of results from the committed JSON files, and nothing else.

python benchmarks/readme_table.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from parnet_deploy.measure import Latency, compare_latency

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"
BEGIN, END = "<!-- results:begin -->\n", "<!-- results:end -->"
VARIANTS = ("parnet-s", "parnet-m", "parnet-l", "parnet-xl")
OURS = "parnet-deploy"
NOT_YET = "not yet measured"
_LIBRARIES = (
    ("ONNX Runtime", "onnxruntime"),
    ("OpenVINO", "openvino"),
    ("MNN", "MNN"),
    ("ncnn", "ncnn"),
)


def main() -> None:
    """Replace what stands between the markers."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    readme.write_text(head + BEGIN + render() + END + tail, encoding="utf-8")


def render() -> str:
    """The conditions and the table, in Markdown."""
    found = {name: _load(name) for name in VARIANTS}
    known = [data for data in found.values() if data]
    if not known:
        raise SystemExit("benchmarks/results holds no cpu-*.json. Run: make bench")
    environment = known[0]["environment"]["before"]
    lines = [
        "Batch 1, 224x224, float32, random weights, "
        f"{environment['cores_usable']} cores of {environment['cpu']}, "
        f"ONNX Runtime {environment['packages']['onnxruntime']}, PyTorch "
        f"{environment['packages']['torch']}; medians of one run in turns, a process for each, "
        "ONNX Runtime never spins, PyTorch at its own defaults. A ratio is ours in units of the "
        "other, with its 95 % interval; the ResNets run on the same ONNX Runtime."
        + _gpu_conditions(),
        "",
        "| network | parnet_deploy | eager PyTorch | of PyTorch | of the unfused export on ONNX "
        "Runtime | of ResNet-34 | of ResNet-50 | TensorRT, 1 GPU | TensorRT, 3 GPUs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(name, data) for name, data in found.items()]
    lines += _backend_lines()
    lines += _precision_lines()
    return "\n".join(lines) + "\n"


def _row(name: str, data: dict[str, Any] | None) -> str:
    if data is None:
        return f"| {name} |" + f" {NOT_YET} |" * 6 + " " + " | ".join(_gpu_cells(name)) + " |"
    arms = {arm["name"]: arm for arm in data["arms"]}
    ratios = {ratio["base"]: ratio for ratio in data["ratios"]}
    cells = [f"{arms[arm]['p50_ms']:.1f} ms" for arm in (OURS, "torch")]
    for base in ("torch", "onnxruntime", "resnet34", "resnet50"):
        ratio = ratios[base]
        cells.append(f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})")
    return f"| {name} | " + " | ".join([*cells, *_gpu_cells(name)]) + " |"


def _load(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"cpu-{name}.json"
    if not path.exists():
        return None
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def _backend_lines() -> list[str]:
    """The table of the CPU's backends for each network that was measured with all of them."""
    lines = []
    for name in VARIANTS:
        path = RESULTS / f"cpu-backends-{name}.json"
        if not path.exists():
            continue
        data = json.loads(path.read_text(encoding="utf-8"))
        environment = data["environment"]["before"]
        versions = environment["packages"]
        told = [f"{title} {versions[key]}" for title, key in _LIBRARIES if key in versions]
        lines += [
            "",
            f"{name} by backend, on {environment['cores_usable']} cores of {environment['cpu']} "
            f"({', '.join(environment['isa'])}): {', '.join(told)}; plans as `build --backend "
            "NAME --precision P` makes them, `auto` is `build --backend auto`, all in turns. The "
            "ratio is to ONNX Runtime in float32, the default.",
            "",
            "| backend | precision | p50 | of ONNX Runtime float32 | error of the largest logit |",
            "|---|---|---|---|---|",
        ]
        arms = {arm["name"]: arm for arm in data["arms"]}
        base = _samples(arms["onnxruntime fp32"])
        for key, arm in arms.items():
            backend, precision = key.split()
            ratio = compare_latency(_samples(arm), base)
            lines.append(
                f"| {backend} | {precision} | {arm['p50_ms']:.1f} ms | {ratio.median:.2f} "
                f"({ratio.low:.2f} to {ratio.high:.2f}) | {arm['error_of_largest_logit']:.0e} |"
            )
    return lines


def _samples(arm: dict[str, Any]) -> Latency:
    return Latency(name=arm["name"], samples_ms=tuple(arm["samples_ms"]), first_ms=arm["first_ms"])


def _precision_lines() -> list[str]:
    """One sentence on INT8 on the CPU for each network that was measured."""
    lines = []
    for name in VARIANTS:
        path = RESULTS / f"precision-{name}.json"
        if path.exists():
            data = json.loads(path.read_text(encoding="utf-8"))
            ratio = next(r for r in data["ratios"] if (r["arm"], r["base"]) == ("int8", "fp32"))
            size = data["conditions"]["engine ratio"]
            lines += [
                "",
                f"INT8 of {name} on the CPU takes {ratio['median']:.2f} ({ratio['low']:.2f} to "
                f"{ratio['high']:.2f}) of the time of its float32 engine, and {size:.2f} of its "
                "bytes (random weights: time and size mean something, accuracy does not).",
            ]
    return lines


def _gpu_cells(name: str) -> list[str]:
    """The fastest float32 arm of TensorRT on one GPU and on three, host to host."""
    data = _load_gpu(name)
    arms = [] if data is None else [arm for arm in data["arms"] if _is_tensorrt(arm)]
    cells = []
    for gpus in (1, 3):
        times = [arm["p50_ms"] for arm in arms if _gpus(arm["name"]) == gpus]
        cells.append(f"{min(times):.3f} ms" if times else NOT_YET)
    return cells


def _is_tensorrt(arm: dict[str, Any]) -> bool:
    return arm["name"].startswith("tensorrt") and arm["precision"] == "fp32" and "failed" not in arm


def _gpus(arm: str) -> int:
    """``tensorrt, streams, 3 GPUs`` -> 3; the one engine, which names none, runs on one."""
    words = arm.split()
    return int(words[-2]) if words[-1].startswith("GPU") else 1


def _gpu_conditions() -> str:
    found = (_load_gpu(name) for name in VARIANTS)
    devices = sorted({data["conditions"]["device"] for data in found if data is not None})
    if not devices:
        return ""
    return f" TensorRT: float32 without TF32, host to host, on {', '.join(devices)}."


def _load_gpu(name: str) -> dict[str, Any] | None:
    """The newest run on a GPU; a rehearsal on the CPU is none."""
    found = [json.loads(path.read_text("utf-8")) for path in RESULTS.glob(f"gpu-{name}-*.json")]
    found = [data for data in found if data["conditions"]["device"] != "cpu"]
    return max(found, key=lambda data: data["made_at"], default=None)


if __name__ == "__main__":
    main()
