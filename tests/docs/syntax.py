"""Whether a command that a page shows exists, without running it."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Iterator

import click

from parnet_deploy.cli.main import VERBS, cli
from tests.docs.pages import ROOT

OTHERS = {
    "cp",
    "curl",
    "ray",
    "serve",
    "tritonserver",
    "umask",
    "openssl",
    "docker",
    "kubectl",
    "source",
}
"""Programs of others, of which nothing is checked but that the shell can read the line."""


def check_command(line: str) -> None:
    """Raise AssertionError or click.UsageError if there is no such command, verb or option."""
    for words in _simple_commands(line):
        program = words[0]
        if program == "parnet-deploy":
            _check_ours(words[1:])
        elif program == "make":
            text = (ROOT / "Makefile").read_text(encoding="utf-8")
            for target in (word for word in words[1:] if "=" not in word):
                assert re.search(rf"^{re.escape(target)}:", text, re.MULTILINE), line
        elif program == "pip":
            assert words[1] == "install", line
            _check_extras(words[2:])
        elif program == "python":
            assert (ROOT / words[1]).is_file(), line
        else:
            assert program in OTHERS, f"{line}: {program} is not known to tests/docs/syntax.py"


def _simple_commands(line: str) -> Iterator[list[str]]:
    """The commands that a line consists of, without assignments and redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in {";", "&&", "||", "|", "&"}:
            if words:
                yield words
            words = []
        elif words or not re.match(r"\w+=", word):
            words.append(word)


def _check_ours(words: list[str]) -> None:
    """Verb, options, and the choice where an option is one."""
    words = words[: words.index(">")] if ">" in words else words
    if words[0].startswith("-"):
        return
    verb, *arguments = words
    assert verb in VERBS, verb
    with click.Context(cli, info_name="parnet-deploy") as parent:
        command = cli.get_command(parent, verb)
        assert command is not None
        context = click.Context(command, info_name=verb, parent=parent)
        while isinstance(command, click.Group):
            name, *arguments = arguments
            command = command.get_command(context, name)
            assert command is not None, name
            context = click.Context(command, info_name=name, parent=context)
        given, _, _ = command.make_parser(context).parse_args(list(arguments))
        for parameter in command.params:
            if isinstance(parameter.type, click.Choice) and parameter.name in given:
                value = given[parameter.name]
                for one in value if isinstance(value, list) else [value]:
                    parameter.type.convert(one, parameter, context)


def _check_extras(words: list[str]) -> None:
    """Every extra that is named exists."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    named = [name for word in words for name in re.findall(r"\[([\w,]+)\]", word)]
    assert named, words
    for name in ",".join(named).split(","):
        assert name in config["options.extras_require"], name
