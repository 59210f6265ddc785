"""docs/serving.md says what is so: its programs run, its tables are the code's."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from parnet_deploy.serve.model.options import ModelOptions
from parnet_deploy.serve.protocol.refusal import CODES
from parnet_deploy.serve.server.deployments import DeploymentServer
from parnet_deploy.serve.server.options import ServerOptions
from tests.serve.load.deployments import make_deployment

REPOSITORY = Path(__file__).parents[2]
NAMED = "http://127.0.0.1:8000"  # where its programs ask
TEXT = (REPOSITORY / "docs/serving.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what the programs name."""
    directory = tmp_path_factory.mktemp("docs")
    (directory / "engines").mkdir()
    make_deployment(directory / "engines", side=32, name="digits")
    Image.new("RGB", (40, 30), (200, 60, 10)).save(directory / "photo.jpg")
    return directory


@contextlib.contextmanager
def running(path: Path) -> Iterator[str]:
    """A server in a thread of its own; its URL."""
    ready, url, stop = threading.Event(), [""], asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        options = ServerOptions(port=0, grpc_port=None)
        async with DeploymentServer([ModelOptions(path=path)], options) as server:
            url[0] = server.url or ""
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(60)
        assert url[0]
        yield url[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def execute(program: str, **given: object) -> str:
    """What it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, "docs/serving.md", "exec"), given)
    return printed.getvalue()


def test_the_request_is_answered(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    with running(workplace / "engines/digits") as url:
        printed = execute(at(url, PROGRAMS[0]))
    check_best(ast.literal_eval(printed))


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_shell_asks_the_same(workplace: Path) -> None:
    (command,) = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    with running(workplace / "engines/digits") as url:
        done = subprocess.run(
            ["sh", "-euc", at(url, command)], cwd=workplace, capture_output=True, check=True
        )
    check_best(json.loads(done.stdout)["outputs"][0]["data"])


def at(url: str, program: str) -> str:
    """The program for a server at another port than the one that it names."""
    assert program.count(NAMED) == 1
    return program.replace(NAMED, url)


def check_best(best: list[str]) -> None:
    assert len(best) == 3
    values = [float(one.split(":")[0]) for one in best]
    assert values == sorted(values, reverse=True)


def test_the_server_in_a_program_serves(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    command = [sys.executable, "-c", PROGRAMS[1]]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            printed = process.stdout.readline()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+ 127\.0\.0\.1:\d+\n", printed)
            with urllib.request.urlopen(f"{printed.split()[0]}/v2/health/ready") as answer:
                assert answer.status == 200
        finally:
            process.kill()


def test_every_refusal_is_in_the_table() -> None:
    rows = [line.split("|")[2:5] for line in TEXT.splitlines() if re.match(r"\|.*\| \d{3}", line)]
    found = {}
    for http, grpc, reasons in rows:
        for reason in reasons.split(","):
            found[reason.strip()] = (int(http.split(",")[0]), grpc.split(",")[0].strip())
    codes = {kind: (code.http, code.grpc) for kind, code in CODES.items()}
    codes["wrong-method"] = (405, "")  # there is none in gRPC
    assert found == codes
