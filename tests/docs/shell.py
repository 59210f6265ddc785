"""Runs what a page shows, in a directory like a clone, in the page's order."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT, Block, read_commands
from tests.docs.printed import is_printed
from tests.docs.syntax import check_command

WIDTH = 90
ONLY_CHECKED = ("make ", "pip ", "PIP_EXTRA_INDEX_URL=")
"""Commands that set up the machine are not run: that they exist is checked."""
PORTS = {"REST": "127.0.0.1:8000", "gRPC": "127.0.0.1:8001"}


class Shell:
    """One page's commands. ``close`` ends the servers that it started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._servers: list[subprocess.Popen[str]] = []
        self._addresses: dict[str, str] = {}  # what the pages say: where it is
        programs = directory / ".bin"
        programs.mkdir(exist_ok=True)
        ours = programs / "parnet-deploy"
        ours.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m parnet_deploy "$@"\n')
        ours.chmod(0o755)
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "COLUMNS": str(WIDTH),
        }

    def run(self, block: Block, *, following: Block | None = None) -> None:
        """Run a block and compare what it prints; ``following`` is the block behind it."""
        if block.language == "python":
            got = self.execute([sys.executable, "-c", self._there(block.text)], str(block))
            if following is not None and following.mark == "prints":
                self._compare(following.text, got, block, vary=False)
            return
        for command in read_commands(block):
            if command.line.startswith(ONLY_CHECKED):
                check_command(command.line)
                continue
            got = self._command(command.line, block)
            if command.prints is not None:
                self._compare(command.prints, got, block, vary=block.mark == "figures vary")

    def close(self) -> None:
        """SIGTERM to every server; each ends by itself, without an error."""
        for server in self._servers:
            server.send_signal(signal.SIGTERM)
        for server in self._servers:
            server.communicate(timeout=60)
            assert server.returncode == 0
        self._servers.clear()

    def _command(self, line: str, block: Block) -> str:
        if line.startswith("parnet-deploy serve"):
            return self._serve(line)
        if line.startswith("parnet-deploy bench"):
            line += " --rounds 2"
        return self.execute(["sh", "-euc", self._there(line)], f"{block}: {line}", block.exit_code)

    def execute(self, command: list[str], where: str, exit_code: int = 0) -> str:
        """Run a command that must end with this code; what it prints, on both streams."""
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == exit_code, f"{where}: exit {done.returncode}\n{done.stdout}"
        return self._named(done.stdout)

    def _serve(self, line: str) -> str:
        """Start a server on free ports; what it prints until it is ready."""
        server = subprocess.Popen(
            [*shlex.split(line), "--port", "0", "--grpc-port", "0"],
            executable=shutil.which("parnet-deploy", path=self._environment["PATH"]),
            cwd=self.directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._servers.append(server)
        assert server.stdout is not None
        printed = []
        for text in server.stdout:
            printed.append(text)
            if text.startswith("next "):
                break
        found = re.findall(r"^(REST|gRPC) +(?:http://)?(\S+)$", "".join(printed), re.MULTILINE)
        assert len(found) == 2, "".join(printed)
        self._addresses = {PORTS[wire]: address for wire, address in found}
        return self._named("".join(printed))

    def _there(self, text: str) -> str:
        """With the addresses of the servers that run."""
        for named, address in self._addresses.items():
            text = text.replace(named, address)
        return text

    def _named(self, text: str) -> str:
        """With the addresses that the pages say."""
        for named, address in self._addresses.items():
            text = text.replace(address, named)
        return text

    def _compare(self, expected: str, got: str, block: Block, *, vary: bool) -> None:
        same = is_printed(expected, got, figures_vary=vary)
        assert same, f"{block} says\n{expected}\nbut it printed\n{got}"
