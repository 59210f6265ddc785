"""Build one engine with TensorRT and read back what came out. Runs in the child process only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import EngineBuildError
from ...runtime.tensorrt.compat import (
    io_tensors,
    load_engine,
    make_context,
    make_runtime,
    scratch_bytes,
)
from ...runtime.tensorrt.log import failure, log_position, log_tail, make_logger
from .config import (
    add_profile,
    make_builder,
    make_network,
    missing_libraries,
    network_flags,
    parser_errors,
    precision_flags,
    restrict_sources,
    set_flag,
    set_hardware,
    set_previews,
    watch_build,
    weakly_typed,
)
from .engine_cache import write_file
from .inspection import Inspection, inspect_engine
from .job import Job
from .timing_cache import keep_timing, use_timing

Step = Callable[[str, int, int], bool]
"""Called with a phase, its steps done and in all; False cancels the build."""


def build_plan(trt: Any, job: Job, on_step: Step) -> dict[str, Any]:
    """Write the plan of a job; returns the record, as plain JSON types.

    Raises:
        EngineBuildError: TensorRT cannot build it, or the precision of the graph is not there.
        OutOfMemoryError: The GPU has too little memory.
    """
    start = time.perf_counter()
    since = log_position()
    builder = make_builder(trt)
    network = make_network(trt, builder)
    graph = job.graph.read_bytes()
    parser = _parse(trt, network, graph, job)  # owns the weights of the network
    config = builder.create_builder_config()
    record = _configure(trt, builder, config, job)
    if weakly_typed(trt) and job.half:
        record["layers_kept_in_float32"] = _keep_float(trt, network, job)
    monitor = watch_build(trt, config, on_step)
    plan = builder.build_serialized_network(network, config)
    record["timing_cache_kept"] = keep_timing(config, job.timing_cache)
    if plan is None:
        what = f"engine {job.name}: got no plan from TensorRT {trt.__version__}, expected one"
        cure = "See the messages; run: parnet-deploy doctor."
        raise failure(EngineBuildError, what, cure, since=since)
    data = bytes(plan)
    write_file(job.plan, data)
    record["build_s"] = round(time.perf_counter() - start, 3)
    del plan, config, monitor, network, parser, builder
    record |= _read_back(trt, data, job)
    record["log"] = log_tail(since)
    return record


def _parse(trt: Any, network: Any, graph: bytes, job: Job) -> Any:
    since = log_position()
    parser = trt.OnnxParser(network, make_logger(trt))
    if parser.parse(graph):
        return parser
    errors = parser_errors(parser)
    unsupported = sorted({e["operator"] for e in errors if e["code"].startswith("UNSUPPORTED")})
    shown = "; ".join(
        f"node {error['node']} {error['operator']}: {error['code']}: {error['text']}"
        for error in errors
    )
    cure = "Use a newer TensorRT, or run: parnet-deploy export."
    named = ", ".join(filter(None, unsupported))
    if named:
        cure = f"This TensorRT does not support {named}. {cure}"
    what = (
        f"graph of engine {job.name}: got {len(errors)} error(s) from the parser of TensorRT "
        f"{trt.__version__} ({shown or 'without a text'}), expected a graph that it can read"
    )
    raise failure(EngineBuildError, what, cure, since=since)


def _configure(trt: Any, builder: Any, config: Any, job: Job) -> dict[str, Any]:
    options = job.options
    flags = precision_flags(trt, half=job.half, quantized=job.quantized)
    for name in flags:
        set_flag(trt, config, name, required=True)
    set_flag(trt, config, "TF32", options.tf32)
    config.builder_optimization_level = options.optimization_level
    config.max_aux_streams = options.aux_streams
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # to read the precision back
    if options.workspace_mib is not None:
        pool = trt.MemoryPoolType.WORKSPACE
        config.set_memory_pool_limit(pool, options.workspace_mib * 2**20)
    if options.timing_iterations is not None:
        config.avg_timing_iterations = options.timing_iterations
    if options.hardware_compatibility != "none":
        set_hardware(trt, config, options.hardware_compatibility)
    previews = {}
    if weakly_typed(trt):  # from 10 on it is so: several execution contexts may use one profile
        previews = set_previews(trt, config, {"PROFILE_SHARING_0806": True})
    missing = missing_libraries(trt)
    sources = restrict_sources(trt, config) if missing else ()
    for profile in job.profiles:
        add_profile(builder, config, profile)
    return {
        "weakly_typed": weakly_typed(trt),
        "network_flags": list(network_flags(trt)),
        "builder_flags": [*flags, *(["TF32"] if options.tf32 else [])],
        "previews": previews,
        "tactic_sources": list(sources) or "default",
        "missing_libraries": list(missing),
        "timing_cache_used": use_timing(config, job.timing_cache),
    }


def _keep_float(trt: Any, network: Any, job: Job) -> int:
    """Hold layers that the graph computes in float32 to it; their number."""
    wanted, kept = set(job.keep_float), 0
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.name in wanted:
            layer.precision = trt.DataType.FLOAT
            kept += 1
    return kept


def _read_back(trt: Any, plan: bytes, job: Job) -> dict[str, Any]:
    """What the engine is made of. It is inspected at the usual shapes of the first profile."""
    start = time.perf_counter()
    runtime = make_runtime(trt)
    engine = load_engine(trt, runtime, plan, name=job.name)
    context = make_context(trt, engine, name=job.name)
    for name, ranges in job.profiles[0].items():
        context.set_input_shape(name, ranges.usual)
    inspection = inspect_engine(trt, engine, context)
    return {
        "layers": inspection.by_precision,
        "layers_fused": inspection.fused,
        "reformats": inspection.reformats,
        "precision_found": require_precision(trt, inspection, job),
        "aux_streams": int(engine.num_aux_streams),
        "scratch_bytes": scratch_bytes(engine),
        "tensors": [tensor.to_json() for tensor in io_tensors(trt, engine)],
        "read_back_s": round(time.perf_counter() - start, 3),
    }


def require_precision(trt: Any, inspection: Inspection, job: Job) -> Mapping[str, str]:
    """Refuse an engine in which the precision of the graph is nowhere.

    Returns: For each precision "found"; or "not told" where types bind (TensorRT 10 and later) and
        the layers that could run in it were compiled into one whose inside is not told.

    Raises:
        EngineBuildError: No layer runs in it.
    """
    asked = ["float16"] * job.half + ["int8"] * job.quantized
    found = {}
    for precision in asked:
        if inspection.runs_in(precision):
            found[precision] = "found"
        elif inspection.fused and not weakly_typed(trt):
            found[precision] = "not told"
        else:
            raise EngineBuildError(
                f"engine {job.name}: got layers by precision {dict(inspection.by_precision)}, "
                f"expected some in {precision}, as the graph says. TensorRT {trt.__version__} left "
                "it out on this GPU: build the fp32 graph instead, or use another version."
            )
    return found
