"""``python -m parnet_deploy.capi`` says where the files are."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from parnet_deploy.capi.__main__ import main


@pytest.mark.parametrize(
    ("option", "file"),
    [("--cmake-dir", "parnet_deployConfig.cmake"), ("--include-dir", "parnet_deploy.h")],
)
def test_it_names_a_directory_that_has_the_file(option: str, file: str) -> None:
    result = CliRunner().invoke(main, [option])
    assert result.exit_code == 0
    assert (Path(result.stdout.rstrip("\n")) / file).is_file()


def test_without_an_option_it_says_which_there_are() -> None:
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 2
    assert "--cmake-dir or --include-dir" in result.stderr
