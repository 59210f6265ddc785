"""``python -m parnet_deploy.capi``: where a build finds the header and the library."""

from __future__ import annotations

import click

from . import CMAKE_DIR


@click.command()
@click.option("--cmake-dir", "answer", flag_value=str(CMAKE_DIR), help="For find_package.")
@click.option(
    "--include-dir", "answer", flag_value=str(CMAKE_DIR / "include"), help="Of the header."
)
def main(answer: str | None) -> None:
    """Print where a build finds the library: cmake -Dparnet_deploy_DIR="$(... --cmake-dir)"."""
    if answer is None:
        raise click.UsageError("Name what you want: --cmake-dir or --include-dir.")
    click.echo(answer)


if __name__ == "__main__":
    main(prog_name="python -m parnet_deploy.capi")
