"""How a server is set up: where it listens, who may ask, and what one client may take up."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import ServeError
from ..security.bind import check_exposure, is_loopback, resolve_host
from ..security.limits import Limits
from ..security.tls import TlsFiles
from ..security.token import Token

_HIGHEST_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Ports: 0 is any free one, None is not at all.

    ``metrics_port``: /metrics and the health questions on 127.0.0.1, without token and TLS; None:
    /metrics is on the REST port like everything else. ``drain_s``: how long requests may take to
    finish when the server is told to stop. ``insecure``: listen anywhere without token and TLS.
    """

    host: str = "127.0.0.1"
    port: int | None = 8000
    grpc_port: int | None = 8001
    metrics_port: int | None = None
    token: Token | None = None
    tls: TlsFiles | None = None
    insecure: bool = False
    limits: Limits = field(default_factory=Limits)
    drain_s: float = 30.0

    def address(self) -> str:
        """Where to listen, resolved and held against the bind rule.

        Raises:
            ServeError: The host is not known, or must not be listened at without protection; or the
                ports make no sense.
        """
        self._check_ports()
        address = resolve_host(self.host)
        protected = self.token is not None or self.tls is not None
        check_exposure(self.host, address, protected=protected, insecure=self.insecure)
        return address

    def warnings(self, address: str) -> list[str]:
        """What whoever starts it should know of its protection."""
        found = []
        if self.token is not None and self.token.warning:
            found.append(self.token.warning)
        if is_loopback(address):
            return found
        if self.tls is None:
            what = "the token and the data go" if self.token else "the data goes"
            found.append(f"no TLS: {what} over the network for everyone to read")
        if self.token is None and (self.tls is None or self.tls.client_ca is None):
            found.append("no token and no client certificates: whoever reaches the port may ask")
        return found

    def _check_ports(self) -> None:
        ports = {"REST": self.port, "gRPC": self.grpc_port, "metrics": self.metrics_port}
        for name, port in ports.items():
            if port is not None and not 0 <= port <= _HIGHEST_PORT:
                raise ServeError(
                    f"{name} port: got {port}, expected 0 to {_HIGHEST_PORT}. Choose another."
                )
        if self.port is None and self.grpc_port is None:
            raise ServeError("wires: got neither REST nor gRPC, expected at least one of them.")
        fixed = [port for port in ports.values() if port]
        if len(set(fixed)) < len(fixed):
            shown = ", ".join(f"{name} {port}" for name, port in ports.items() if port)
            raise ServeError(f"ports: got {shown}, expected different ones. Choose others.")
