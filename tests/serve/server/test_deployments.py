"""Deployments that change on disk under a server."""

from __future__ import annotations

import asyncio
import logging
import shutil
import traceback
from pathlib import Path

import pytest

from parnet_deploy.errors import CheckFailedError
from parnet_deploy.serve.model.options import ModelOptions
from parnet_deploy.serve.server.deployments import DeploymentServer
from parnet_deploy.serve.server.options import ServerOptions
from tests.runtime.runtime_toys import SPECS, fixed_size
from tests.serve.service_toys import publish

NEW = {"spec": SPECS[2], "size": fixed_size(SPECS[2]), "labels": None, "preprocessing": None}


def replace(path: Path, by: Path) -> None:
    shutil.rmtree(path)
    shutil.copytree(by, path)


def test_one_that_cannot_be_opened_is_tried_again_when_it_has_changed_or_is_asked_for(
    tmp_path, caplog
) -> None:
    path = publish(tmp_path / "toy")
    old = tmp_path / "old"
    shutil.copytree(path, old)
    bad = publish(tmp_path / "bad", canary_off_by=0.5)
    other_bad = publish(tmp_path / "other", canary_off_by=0.7)
    new = publish(tmp_path / "new", **NEW)

    async def main() -> None:
        options = ServerOptions(port=0, grpc_port=None)
        async with DeploymentServer([ModelOptions(path=path)], options) as server:
            tried, swap = [], server.service.swap

            async def counted(name: str):
                tried.append(name)
                return await swap(name)

            server.service.swap = counted

            async def fails(*, again: bool) -> Exception:
                with pytest.raises(CheckFailedError) as found:
                    await server.reload(again=again)
                return found.value

            replace(path, bad)
            first = await fails(again=False)
            lengths = set()
            for _ in range(5):
                error = await fails(again=False)
                assert error is first  # so that the log says it once
                lengths.add(len(traceback.extract_tb(error.__traceback__)))
            assert len(tried) == len(lengths) == 1
            assert await fails(again=True) is not first
            assert len(tried) == 2
            replace(path, other_bad)
            await fails(again=False)
            await fails(again=False)
            assert len(tried) == 3
            replace(path, old)  # what answers
            assert await server.reload(again=False) == []
            replace(path, new)
            assert await server.reload(again=False) == ["toy"]
            assert await server.reload(again=False) == []
            assert len(tried) == 4

    with caplog.at_level(logging.WARNING, "parnet_deploy"):
        asyncio.run(main())
    assert caplog.records == []  # who asked is told by the error
