"""A model's ``config.pbtxt``: tensors, batching, queue, instances.

The fields are those of ``model_config.proto``. Triton batches along the first axis, which it adds
itself: it stands in no ``dims``.
"""

from __future__ import annotations

from ..input_size import InputSize
from ..plan import Plan
from ..runtime.backend import extras_of
from ..spec import IMAGE, LOGITS
from .source import Source
from .text_format import Message, Value, Word, render_comment, render_message

ENCODED = "encoded_image"
LABELS_FILE = "labels.txt"
PLAN_PARAMETER = "plan"

_GPU_BACKENDS = ("tensorrt", "onnxruntime-cuda")
_RUNS: dict[str, tuple[str, str]] = {
    "python": ("backend", "python"),
    "onnxruntime": ("platform", "onnxruntime_onnx"),
    "tensorrt": ("platform", "tensorrt_plan"),
}


def render_config(source: Source) -> str:
    """The whole file."""
    return render_comment(_about(source)) + render_message(_config(source))


def takes_encoded(source: Source) -> bool:
    """Whether images are accepted as files: our own code runs, and knows how to prepare them."""
    return source.options.kind == "python" and source.deployment.preprocessing is not None


def _config(source: Source) -> Message:
    options, plan = source.options, source.plan
    key, runner = _RUNS[options.kind]
    output: dict[str, Value] = {
        "name": LOGITS,
        "data_type": Word("TYPE_FP32"),
        "dims": [source.deployment.spec.num_classes],
    }
    if source.deployment.labels is not None:
        output["label_filename"] = LABELS_FILE
    found: dict[str, Value] = {
        "name": source.deployment.name,
        key: runner,
        "max_batch_size": plan.max_batch,
        "input": _inputs(source),
        "output": [output],
        "instance_group": [_instances(source)],
    }
    if options.batched:
        found["dynamic_batching"] = _batching(source)
    if options.kind == "tensorrt" and options.cuda_graphs:
        found["optimization"] = {"cuda": _graphs(source)}
    parameters = _parameters(source)
    if parameters:
        found["parameters"] = [
            {"key": name, "value": {"string_value": value}} for name, value in parameters.items()
        ]
    return found


def _inputs(source: Source) -> list[Message]:
    spec, size = source.deployment.spec, source.plan.input_size
    image: dict[str, Value] = {
        "name": IMAGE,
        "data_type": Word("TYPE_FP32"),
        "dims": [spec.in_channels, *_sides(size)],
    }
    if not takes_encoded(source):
        return [image]
    encoded: dict[str, Value] = {"name": ENCODED, "data_type": Word("TYPE_STRING"), "dims": [1]}
    return [{**image, "optional": True}, {**encoded, "optional": True}]


def _sides(size: InputSize) -> tuple[int, int]:
    """Height and width, -1 where a range is accepted."""
    height, width = (
        low if low == high else -1 for low, high in zip(size.low, size.high, strict=True)
    )
    return height, width


def _batching(source: Source) -> Message:
    options = source.options
    policy: dict[str, Value] = {
        "timeout_action": Word("REJECT"),
        "default_timeout_microseconds": options.timeout_us,
        "allow_timeout_override": True,
        "max_queue_size": options.queue_size,
    }
    return {
        "max_queue_delay_microseconds": options.queue_delay_us,
        "default_queue_policy": policy,
    }


def _instances(source: Source) -> Message:
    """Engines of Triton's own backends are on one device; our runtime chooses devices itself."""
    options, plan = source.options, source.plan
    found: dict[str, Value] = {"count": options.replicas}
    on_gpu = plan.backend in _GPU_BACKENDS
    if options.kind == "python":
        return {**found, "kind": Word("KIND_MODEL" if on_gpu else "KIND_CPU")}
    if not on_gpu:
        return {**found, "kind": Word("KIND_CPU")}
    found |= {"kind": Word("KIND_GPU"), "gpus": list(plan.placement.devices)}
    if options.kind == "tensorrt":
        found["profile"] = [str(i) for i in range(_profiles(source))]
    return found


def _profiles(source: Source) -> int:
    """Optimization profiles of the engine; without ``profile`` Triton takes the first only."""
    return max(1, len(source.record.get("profiles", ())))


def _graphs(source: Source) -> Message:
    """CUDA graphs of the largest image, for one image and for a full batch."""
    plan, spec = source.plan, source.deployment.spec
    shape = {"dim": [spec.in_channels, *plan.input_size.high]}
    batches = sorted({1, plan.max_batch})
    return {
        "graphs": True,
        "graph_spec": [
            {"batch_size": batch, "input": {"key": IMAGE, "value": shape}} for batch in batches
        ],
    }


def _parameters(source: Source) -> dict[str, str]:
    options, plan = source.options, source.plan
    if options.kind == "python":
        return {} if options.plan is None else {PLAN_PARAMETER: options.plan}
    if options.kind == "onnxruntime" and plan.backend == "onnxruntime" and plan.threads:
        return {"intra_op_thread_count": str(plan.threads), "inter_op_thread_count": "1"}
    return {}


def _about(source: Source) -> str:
    """What a person who reads the file wants to know."""
    deployment, options = source.deployment, source.options
    lines = [
        f"Written by parnet-deploy export-triton from deployment {deployment.name}, digest",
        f"{deployment.digest}.",
    ]
    if options.kind == "python":
        extras = ",".join((*extras_of(source.plan), "images"))
        lines += [
            f"Plan: {options.plan or 'the best one that the serving machine can run'}.",
            f"Triton's Python must have parnet_deploy with what {source.found.key} needs:",
            f"pip install 'parnet-deploy[{extras}]'.",
        ]
    else:
        lines.append(f"Plan: {source.found.key}, precision {source.plan.precision}.")
    if options.kind == "tensorrt":
        lines += _about_engine(source.plan, source)
    if not options.batched:
        lines += [
            "Requests run one by one and wait without a limit. For batches and a bounded queue:",
            "--replicas 2 (or --batching; with one instance Triton's batcher misses wake-ups).",
        ]
    return "\n".join(lines)


def _about_engine(plan: Plan, source: Source) -> list[str]:
    record = source.record
    version = record.get("tensorrt", "an unknown version")
    device = record.get("device") or {}
    name = device.get("name", "an unknown GPU")
    capability = device.get("compute_capability", "unknown")
    found = [
        f"The engine was built with TensorRT {version} for {name} (compute capability",
        f"{capability}): a Triton with the same version of TensorRT, on such a GPU, runs it.",
    ]
    if source.options.cuda_graphs and _profiles(source) > 1:
        found += [
            "Batch 1 has a profile of its own: Triton tries each graph with each profile, and logs",
            "an error for the pairs that do not fit. They are harmless.",
        ]
    return found
