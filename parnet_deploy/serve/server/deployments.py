"""A server of deployments: ``Server`` over ``InferenceService``, with its pages and counts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ...deployment import Deployment
from ...errors import DeploymentUntrustedError
from ...storage.signature import Signature
from ..model.options import ModelOptions
from ..page.page import load_page
from ..rest.answer import Answer, json_answer
from ..rest.app import Page
from ..service.inference import InferenceService
from ..service.options import ServiceOptions
from ..shells.telemetry import Tracer
from .options import ServerOptions
from .server import Server

_Version = tuple[str, Signature | None]


class DeploymentServer(Server):
    """Serves deployments, from Python as from the command line.

        async with DeploymentServer([ModelOptions(path="engines/digits")]) as server:
            ...  # ask server.url

    Args:
        models: What to serve.
        options: Where to listen and who may ask.
        service_options: Queue, deadline, batches.
        tracer: Told of each request; see ``telemetry``.

    Owns: engines, threads and sockets, until it is closed.
    """

    def __init__(
        self,
        models: Sequence[ModelOptions],
        options: ServerOptions | None = None,
        service_options: ServiceOptions | None = None,
        *,
        tracer: Tracer | None = None,
    ) -> None:
        self.service = InferenceService(models, service_options)
        self._models = tuple(models)
        self._failed: dict[str, tuple[_Version, Exception]] = {}  # by name: which, and why
        metrics = self.service.metrics
        super().__init__(
            self.service,
            options,
            pages=service_pages(self.service),
            metrics=metrics.render,
            on_refused=lambda wire, kind: metrics.refused("", wire, kind),
            tracer=tracer,
        )

    async def reload(self, *, again: bool = True) -> list[str]:
        """Take each deployment that was changed on disk into service; names of those.

        One that cannot answer any more, as its device is lost or its engines hang or are wrong, is
        opened again where ``again`` is. No request is lost. If one cannot be opened, what was
        served goes on.

        Args:
            again: Somebody asked. Try also one that could not be opened before and has not changed
                since; False: what it raised then is raised again.

        Raises:
            ParnetDeployError: One cannot be read or opened; those before it were taken.
        """
        changed = []
        for name, model in zip(self.service.models, self._models, strict=True):
            digest, version = await asyncio.to_thread(_look, model)
            known = self.service.model_card(name)["digest"]
            if digest != known or (again and self.service.trouble(name)):
                await self._take(name, version, again=again)
                changed.append(name)
        return changed

    async def _take(self, name: str, version: _Version, *, again: bool) -> None:
        failed, error = self._failed.pop(name, (None, None))
        try:
            if error is not None and failed == version and not again:
                raise error.with_traceback(None)  # or it would grow at each look
            await self.service.swap(name)
        except Exception as error:
            self._failed[name] = version, error
            raise


def service_pages(service: InferenceService) -> dict[str, Page]:
    """What is answered beside the protocol: the page for people, and the cards that it shows."""

    def cards() -> Answer:
        return json_answer({"models": list(service.describe()["models"].values())})

    return {"/": Page(make=_page, public=True), "/card": Page(make=cards)}


def _page() -> Answer:
    """The page itself has no secret; what it asks for needs the token."""
    page = load_page()
    headers = tuple((name.encode(), value.encode()) for name, value in page.headers.items())
    return Answer(headers=headers, body=page.body)


def _look(model: ModelOptions) -> tuple[str, _Version]:
    """The digest of what is there, and all that decides whether it can be taken."""
    found = Deployment.open(model.path)
    try:
        return found.digest, (found.digest, found.read_signature())
    except DeploymentUntrustedError:  # a damaged one: opening says what that means
        return found.digest, (found.digest, None)
