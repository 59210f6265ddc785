"""The enumerations of the fake TensorRT, with the numbers that each version gives them."""

from __future__ import annotations

import enum
from typing import Any


class PyEnum(enum.Enum):
    """As the bindings make them: ``int(x)`` works, arithmetic does not."""

    def __int__(self) -> int:
        return int(self.value)

    def __index__(self) -> int:
        return int(self.value)


def shared(name: str, members: str) -> Any:
    """Members numbered from 0, or as ``NAME=7`` says."""
    numbers, following = {}, 0
    for text in members.split():
        member, _, number = text.partition("=")
        following = int(number) if number else following
        numbers[member] = following
        following += 1
    return PyEnum(name, numbers)  # type: ignore[call-overload]


_COMMON = {
    "TensorIOMode": "NONE INPUT OUTPUT",
    "TensorLocation": "DEVICE HOST",
    "TensorFormat": "LINEAR CHW2 HWC8 CHW4 CHW16 CHW32",
    "LayerInformationFormat": "ONELINE JSON",
}
_TYPES = "FLOAT HALF INT8 INT32 BOOL UINT8 FP8"
_CODES = (
    "SUCCESS INTERNAL_ERROR MEM_ALLOC_FAILED MODEL_DESERIALIZE_FAILED INVALID_VALUE INVALID_GRAPH "
    "INVALID_NODE UNSUPPORTED_GRAPH UNSUPPORTED_NODE"
)
_MORE_CODES = (
    "UNSUPPORTED_NODE_ATTR UNSUPPORTED_NODE_INPUT UNSUPPORTED_NODE_DATATYPE "
    "UNSUPPORTED_NODE_DYNAMIC UNSUPPORTED_NODE_SHAPE REFIT_FAILED"
)
_POOLS = "WORKSPACE DLA_MANAGED_SRAM DLA_LOCAL_DRAM DLA_GLOBAL_DRAM TACTIC_DRAM"
_OLD_SOURCES = "CUBLAS CUBLAS_LT CUDNN EDGE_MASK_CONVOLUTIONS JIT_CONVOLUTIONS"
_MODERN = {
    "DataType": f"{_TYPES} BF16 INT64 INT4 FP4",
    "ErrorCode": f"{_CODES} {_MORE_CODES}",
    "ExecutionContextAllocationStrategy": "STATIC ON_PROFILE_CHANGE USER_MANAGED",
    "HardwareCompatibilityLevel": "NONE AMPERE_PLUS SAME_COMPUTE_CAPABILITY",
    "MemoryPoolType": f"{_POOLS} TACTIC_SHARED_MEMORY",
    "ProfilingVerbosity": "LAYER_NAMES_ONLY NONE DETAILED",
}
_BY_MAJOR: dict[int, dict[str, str]] = {
    8: {
        "DataType": _TYPES,
        "ErrorCode": _CODES,
        "HardwareCompatibilityLevel": "NONE AMPERE_PLUS",
        "MemoryPoolType": _POOLS,
        "ProfilingVerbosity": "LAYER_NAMES_ONLY NONE DETAILED DEFAULT=0 VERBOSE=2",
        "NetworkDefinitionCreationFlag": "EXPLICIT_BATCH EXPLICIT_PRECISION",
        "BuilderFlag": (
            "FP16 INT8 DEBUG GPU_FALLBACK STRICT_TYPES REFIT DISABLE_TIMING_CACHE TF32 "
            "SPARSE_WEIGHTS SAFETY_SCOPE OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS "
            "DIRECT_IO REJECT_EMPTY_ALGORITHMS ENABLE_TACTIC_HEURISTIC VERSION_COMPATIBLE"
        ),
        "TacticSource": _OLD_SOURCES,
        "PreviewFeature": (
            "FASTER_DYNAMIC_SHAPES_0805 DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805 "
            "PROFILE_SHARING_0806"
        ),
    },
    10: {
        **_MODERN,
        "NetworkDefinitionCreationFlag": "EXPLICIT_BATCH STRONGLY_TYPED",
        "BuilderFlag": (
            "FP16 INT8 DEBUG GPU_FALLBACK REFIT DISABLE_TIMING_CACHE TF32 SPARSE_WEIGHTS "
            "SAFETY_SCOPE OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS DIRECT_IO "
            "REJECT_EMPTY_ALGORITHMS VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME FP8 "
            "ERROR_ON_TIMING_CACHE_MISS BF16"
        ),
        "TacticSource": _OLD_SOURCES,
        "PreviewFeature": "PROFILE_SHARING_0806 ALIASED_PLUGIN_IO_10_03",
    },
    11: {
        **_MODERN,
        "NetworkDefinitionCreationFlag": "STRONGLY_TYPED",
        "BuilderFlag": (
            "DEBUG=2 GPU_FALLBACK REFIT DISABLE_TIMING_CACHE TF32 SPARSE_WEIGHTS SAFETY_SCOPE "
            "DIRECT_IO=11 VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME"
        ),
        "TacticSource": "EDGE_MASK_CONVOLUTIONS JIT_CONVOLUTIONS",
        "PreviewFeature": "ALIASED_PLUGIN_IO_10_03 RUNTIME_ACTIVATION_RESIZE_10_10",
    },
}


def enums_of(major: int) -> dict[str, Any]:
    """All enumerations of a major version by name."""
    found = {**_COMMON, **_BY_MAJOR[major]}
    return {name: shared(name, members) for name, members in found.items()}
