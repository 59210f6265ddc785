"""Versions that are known not to go together, as data: what happens, the fix, and who says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .finding import Finding
from .versions import installed, within

GROUP = "conflicts"


@dataclass(frozen=True, kw_only=True)
class Range:
    """A package from ``low`` (included) to ``high`` (not included); None leaves a side open."""

    package: str
    low: str | None = None
    high: str | None = None

    def found(self, version_of: Callable[[str], str | None]) -> str | None:
        """``package version`` if it is installed in this range."""
        version = version_of(self.package)
        if version is None or not within(version, self.low, self.high):
            return None
        return f"{self.package} {version}"


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Packages that must not be there together, or one that must not be there at all.

    ``source`` is where it can be read, or how it was seen.
    """

    name: str
    ranges: tuple[Range, ...]
    happens: str
    fix: str
    source: str


CONFLICTS = (
    Conflict(
        name="onnxruntime, twice",
        ranges=(Range(package="onnxruntime"), Range(package="onnxruntime-gpu")),
        happens="they overwrite each other's files",
        fix="pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
        source="onnxruntime.ai, install: only one of the packages in an environment",
    ),
    Conflict(
        name="grpcio",
        ranges=(Range(package="grpcio", low="1.84", high="1.86"),),
        happens="one request whose path is not UTF-8 ends the gRPC server",
        fix="pip install 'grpcio<1.84'",
        source="seen with 1.84.0 to 1.85.3: UnicodeDecodeError in grpc.aio's accept loop",
    ),
    Conflict(
        name="uvicorn, older",
        ranges=(Range(package="uvicorn", high="0.53"),),
        happens="serve refuses to start, or keeps connections open that it should close",
        fix="pip install 'uvicorn>=0.53,<0.55'",
        source="seen: before 0.45 large requests hang, before 0.53 no 'connection: close'",
    ),
    Conflict(
        name="uvicorn, newer",
        ranges=(Range(package="uvicorn", low="0.55"),),
        happens="not tested: serve builds on parts of uvicorn that are not its public interface",
        fix="pip install 'uvicorn>=0.53,<0.55'",
        source="this package's setup.cfg",
    ),
    Conflict(
        name="protobuf beside Ray",
        ranges=(Range(package="ray"), Range(package="protobuf", low="7")),
        happens="serve --ray may not start: the packages that Ray brings want an older protobuf",
        fix="an environment of its own for Ray: make ray",
        source="this package's setup.cfg: grpcio-reflection 1.82 wants protobuf 7, clients want 6",
    ),
    Conflict(
        name="protobuf beside tritonclient",
        ranges=(Range(package="tritonclient"), Range(package="protobuf", low="7")),
        happens="tritonclient's gRPC messages cannot be imported",
        fix="an environment of its own for the client",
        source="tritonclient's requirements: protobuf below 7",
    ),
    Conflict(
        name="numpy beside onnxruntime",
        ranges=(Range(package="numpy", low="2"), Range(package="onnxruntime", high="1.19")),
        happens="onnxruntime was compiled for numpy 1 and fails when it is imported",
        fix="pip install 'onnxruntime>=1.19'",
        source="ONNX Runtime 1.19 release notes: numpy 2 is supported from there on",
    ),
    Conflict(
        name="TensorRT of two CUDA versions",
        ranges=(Range(package="tensorrt-cu12"), Range(package="tensorrt-cu13")),
        happens="both install the module tensorrt; which libraries it finds is left to chance",
        fix="pip uninstall the one that does not fit the driver (see gpu)",
        source="NVIDIA's packages tensorrt-cu12 and tensorrt-cu13 hold the same module",
    ),
)


def examine_conflicts(
    version_of: Callable[[str], str | None] = installed,
    conflicts: tuple[Conflict, ...] = CONFLICTS,
) -> Iterator[Finding]:
    """What is installed here and does not go together; one "ok" if there is nothing."""
    clean = True
    for conflict in conflicts:
        found = [each.found(version_of) for each in conflict.ranges]
        if all(found):
            clean = False
            yield Finding(
                group=GROUP,
                name=conflict.name,
                status="warning",
                detail=f"{' beside '.join(map(str, found))}: {conflict.happens}",
                fix=conflict.fix,
            )
    if clean:
        detail = f"none of {len(conflicts)} that are known"
        yield Finding(group=GROUP, name="versions", status="ok", detail=detail)
