"""The Ray cluster: a new one on this machine, or one that is there, and whether it is protected.

Whoever reaches the ports of a Ray cluster can run code on it, and Ray opens them on every network
interface. So a cluster must hold its token (``RAY_AUTH_MODE=token``): a new one is started so, and
one that is there is asked, without the token, whether it refuses.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import ray
from ray import _raylet

from ...errors import ServeError
from .config import AUTH_MODE
from .internals import errors_in_the_log, groups_of_their_own

AUTO = "auto"
_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_SESSION = re.compile(r"(/\S*/session_[^/\s]+)/")
_MESSAGE = re.compile(r"^\[.*?\] \(\w+\) \S+:\d+: (.*)$", re.MULTILINE)
_QUESTION = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_ANSWER_S = 10.0
_DOCUMENTATION = "https://docs.ray.io/en/latest/ray-security/token-auth.html"


@dataclass(frozen=True, kw_only=True)
class Room:
    """What the nodes of a cluster have, each as (cpus, gpus)."""

    nodes: tuple[tuple[float, float], ...]

    def replicas(self, cpus: float, gpus: float) -> int:
        """How many replicas of this size find room if there is nothing else."""
        found = 0
        for has_cpus, has_gpus in self.nodes:
            by_gpus = has_gpus // gpus if gpus else float("inf")
            found += int(min(has_cpus // cpus, by_gpus))
        return found


@contextmanager
def joined_cluster(address: str | None, *, insecure: bool, **more: Any) -> Iterator[Room]:
    """Be part of a cluster while the block runs.

    Args:
        address: HOST:PORT of one that is there, or "auto" for the one of this machine. None: start
            one here, which ends with the block.
        insecure: Take one that anyone may command, too.
        more: For ``ray.init``.

    Raises:
        ServeError: It cannot be reached or started, or it is not protected.
    """
    if not insecure:
        _use_tokens()
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, **more}
    if address is None:
        options = {"include_dashboard": False, **options}
    elif address != AUTO:
        _check_reachable(address)
    try:
        if address is None:
            _ensure_token()
        with groups_of_their_own():
            context = ray.init(address=address or "local", **options)
    except Exception as error:
        raise _not_joined(address, error) from error
    with errors_in_the_log():
        try:
            if not insecure:
                _check_closed(str(context.address_info["gcs_address"]))
            yield _room()
        finally:
            ray.shutdown()


def is_open(gcs_address: str) -> bool:
    """Whether a cluster answers one who shows no token.

    One that cannot be asked without a certificate (``RAY_USE_TLS``) does not.
    """
    with grpc.insecure_channel(gcs_address) as channel:
        try:
            channel.unary_unary(_QUESTION)(b"", timeout=_ANSWER_S)
        except grpc.RpcError as error:
            return error.code() not in (
                grpc.StatusCode.UNAUTHENTICATED,
                grpc.StatusCode.PERMISSION_DENIED,
                grpc.StatusCode.UNAVAILABLE,
            )
    return True


def _use_tokens() -> None:
    """Have this process and those that it starts hold a token.

    Ray reads the variable when it is imported, which may have been before it was set here.
    """
    os.environ.setdefault(AUTH_MODE, "token")
    _check_mode(os.environ[AUTH_MODE])
    if _raylet.get_authentication_mode() != _raylet.AuthenticationMode.TOKEN:
        _raylet.Config.initialize("")


def _ensure_token() -> None:
    """Make the token of a new cluster if there is none: Ray's own would be readable by all."""
    path = Path.home() / ".ray" / "auth_token"
    if any(os.environ.get(name) for name in _TOKENS) or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_text(secrets.token_hex(32), encoding="ascii")


def _not_joined(address: str | None, error: Exception) -> ServeError:
    """What to say of an error of ``ray.init``; of a new cluster, why its head has not started."""
    got = _first_line(error)
    if address is not None:
        return ServeError(
            f"Ray cluster {address}: got {got}, expected to connect. See `ray status`; the token "
            "must be the cluster's."
        )
    session = _SESSION.search(str(error))
    logs = "" if session is None else f"{session[1]}/logs"
    said = _last_message(Path(logs, "gcs_server.err")) if logs else ""
    return ServeError(
        f"Ray cluster on this machine: got {got}{said and f' (gcs_server: {said})'}, expected it "
        f"to start. See {logs or 'the logs below /tmp/ray/session_latest'}."
    )


def _check_reachable(address: str) -> None:
    """Fail at once where ``ray.init`` would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        if not host or not port.isdecimal():
            raise OSError("no HOST:PORT")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise ServeError(
            f"Ray cluster {address}: got {error}, expected to connect. Name HOST:PORT of the head "
            "node, as `ray start --head` shows it, or auto for the cluster of this machine."
        ) from error


def _check_closed(gcs_address: str) -> None:
    if is_open(gcs_address):
        raise ServeError(
            f"Ray cluster {gcs_address}: got an answer without a token, expected a refusal: "
            "whoever reaches its ports can run code on it. Start it with "
            f"{AUTH_MODE}=token ({_DOCUMENTATION}), or add --insecure if a network of its own "
            "protects it."
        )


def _check_mode(mode: str) -> None:
    if mode.lower() != "token":
        raise ServeError(
            f"{AUTH_MODE}: got {mode}, expected token: without it whoever reaches Ray's ports can "
            f"run code. Set {AUTH_MODE}=token ({_DOCUMENTATION}), or add --insecure if a network "
            "of its own protects the cluster."
        )


def _room() -> Room:
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Room(nodes=tuple((r.get("CPU", 0.0), r.get("GPU", 0.0)) for r in resources))


def _last_message(path: Path) -> str:
    """Of one of Ray's logs, without time and place; empty if there is none."""
    try:
        found = _MESSAGE.findall(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return found[-1].strip() if found else ""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
