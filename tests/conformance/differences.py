"""Where our server answers otherwise than Triton on purpose, and why.

A difference that is not listed fails the comparison, and so does one that is listed and is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.conformance.compare import difference


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A reason, what Triton 2.51 answers and what ours does, for probes of one suite.

    ``ours`` and ``theirs`` are matched entry by entry: what they do not name is not compared.
    """

    suite: str
    probes: tuple[str, ...]
    ours: Mapping[str, Any]
    theirs: Mapping[str, Any]
    why: str


def _told(status: int) -> dict[str, Any]:
    return {"answer": {"status": status, "told": "error"}}


def _error(kind: str) -> dict[str, Any]:
    return {"error": kind}


_ANSWER: dict[str, Any] = {"answer": ...}

KEPT = (
    Kept(
        suite="raw_rest",
        probes=(
            *("broken_json", "json_of_a_list", "json_of_a_number", "no_inputs_key"),
            *("inputs_not_a_list", "id_not_a_string", "parameters_not_an_object"),
            *("shape_missing", "shape_not_a_list", "shape_of_strings", "shape_negative"),
            *("shape_beyond_int64", "shape_fraction", "datatype_missing"),
            *("data_too_short", "data_too_long", "data_of_strings", "data_of_null"),
            *("classification_negative", "classification_text", "timeout_text"),
            *("timeout_negative", "priority_negative", "header_length_short"),
            *("binary_size_negative", "binary_size_text", "gzip_damaged"),
        ),
        ours=_told(400),
        theirs=_told(500),
        why="A request that is malformed is the client's fault. 500 would make clients retry it, "
        "and raise alarms of whoever runs the server.",
    ),
    Kept(
        suite="raw_rest",
        probes=("live_body",),
        ours={"answer": '{"live":true}'},
        theirs={"answer": ""},
        why="KServe's REST client reads the body as JSON and fails on Triton; tritonclient reads "
        "the status alone.",
    ),
    Kept(
        suite="raw_rest",
        probes=("ready_body",),
        ours={"answer": '{"ready":true}'},
        theirs={"answer": ""},
        why="As of the body of live.",
    ),
    Kept(
        suite="kserve_clients",
        probes=("rest_live", "rest_ready"),
        ours={"answer": True},
        theirs=_error("JSONDecodeError"),
        why="See the body of live.",
    ),
    Kept(
        suite="raw_rest",
        probes=("unknown_model_ready",),
        ours=_told(404),
        theirs=_told(400),
        why="A model that is not there is not found, here as on every other path of it. Clients "
        "take any other status than 200 for not ready.",
    ),
    Kept(
        suite="raw_rest",
        probes=("encoding_unknown",),
        ours=_told(400),
        theirs=_told(501),
        why="5xx is for failures of the server.",
    ),
    Kept(
        suite="raw_rest",
        probes=("gzip_upper_case",),
        ours={"answer": {"status": 200}},
        theirs=_told(501),
        why="Names of content codings are case-insensitive (RFC 9110, section 8.4.1).",
    ),
    Kept(
        suite="raw_rest",
        probes=("accept_gzip_small",),
        ours={"answer": None},
        theirs={"answer": "gzip"},
        why="An answer below 256 bytes gains nothing from being compressed; a client may always "
        "get it as it is (RFC 9110, section 12.5.3).",
    ),
    Kept(
        suite="triton_rest",
        probes=("statistics_unknown",),
        ours=_error("status 404"),
        theirs=_error("status 400"),
        why="An unknown model is not found, whatever is asked of it.",
    ),
    Kept(
        suite="triton_rpc",
        probes=("statistics_unknown",),
        ours=_error("NOT_FOUND"),
        theirs=_error("INVALID_ARGUMENT"),
        why="As by REST.",
    ),
    Kept(
        suite="triton_rpc",
        probes=("bad_version",),
        ours=_error("NOT_FOUND"),
        theirs=_error("INVALID_ARGUMENT"),
        why="Versions are names to the protocol: one that is not there is not found. By REST both "
        "answer 404.",
    ),
    Kept(
        suite="triton_rest",
        probes=("index",),
        ours={"answer": [{"name": "digits", "version": "1", "state": "READY", "reason": ""}]},
        theirs={"answer": [{"name": "digits", "version": "1", "state": "READY"}]},
        why="The protocol's index has a reason; by gRPC Triton sends it empty too.",
    ),
    Kept(
        suite="triton_rest",
        probes=("trace_settings", "log_settings"),
        ours=_error("status 501"),
        theirs=_ANSWER,
        why="Trace and log settings can be changed by any client of Triton; ours offers neither.",
    ),
    Kept(
        suite="triton_rpc",
        probes=("trace_settings", "log_settings"),
        ours=_error("UNIMPLEMENTED"),
        theirs=_ANSWER,
        why="As by REST.",
    ),
    Kept(
        suite="triton_rest",
        probes=("memory_region_that_is_not_there",),
        ours=_error("status 501"),
        theirs=_error("status 404"),
        why="Shared memory is not offered: no region could ever be there.",
    ),
    Kept(
        suite="triton_rpc",
        probes=("memory_region_that_is_not_there",),
        ours=_error("UNIMPLEMENTED"),
        theirs=_error("NOT_FOUND"),
        why="As by REST.",
    ),
    Kept(
        suite="triton_rest",
        probes=("same_output_twice",),
        ours=_error("status 400"),
        theirs=_ANSWER,
        why="An output that is asked for twice, perhaps in two forms, is a mistake of the client.",
    ),
    Kept(
        suite="triton_rpc",
        probes=("raw_too_many",),
        ours=_error("INVALID_ARGUMENT"),
        theirs=_ANSWER,
        why="Data that belongs to no input means that client and server disagree on the message.",
    ),
    Kept(
        suite="triton_rpc",
        probes=("garbage",),
        ours=_error("INVALID_ARGUMENT"),
        theirs=_error("INTERNAL"),
        why="Bytes that are no message are the client's fault, as broken JSON is.",
    ),
    Kept(
        suite="triton_rest",
        probes=("encoded_flat",),
        ours=_ANSWER,
        theirs=_error("status 400"),
        why="Where Triton batches, a tensor needs an axis beside that of the batch. Ours takes "
        "one file for each image in either shape, [N] or [N, 1].",
    ),
)


def kept(suite: str, probe: str) -> Kept | None:
    """The listed difference of a probe, if there is one."""
    found = [entry for entry in KEPT if entry.suite == suite and probe in entry.probes]
    if len(found) > 1:
        raise ValueError(f"{suite}: {probe} is listed twice")
    return found[0] if found else None


def judge(suite: str, probe: str, ours: Any, theirs: Any) -> str | None:
    """What is wrong with our answer beside Triton's; None if nothing."""
    differs, entry = difference(ours, theirs), kept(suite, probe)
    if entry is None:
        return differs
    if differs is None:
        return "is listed as different, and is not: remove it from the list"
    for who, outcome, expected in (("ours", ours, entry.ours), ("theirs", theirs, entry.theirs)):
        if not matches(outcome, expected):
            return f"{who} is {outcome!r:.300}, listed as {expected!r}"
    return None


def matches(outcome: Any, expected: Any) -> bool:
    """Whether an outcome has all that is expected; ``...`` is anything."""
    if expected is ...:
        return True
    if isinstance(expected, Mapping):
        return isinstance(outcome, Mapping) and all(
            key in outcome and matches(outcome[key], value) for key, value in expected.items()
        )
    return bool(outcome == expected)
