"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

import proclink
from proclink.cli._bench import bench
from proclink.cli._echo import echo
from proclink.cli._endings import INTERRUPTED, plain_ending, write
from proclink.cli._messages import recv, send

application = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # errors stay plain lines, in a pipe too
)
for command in (bench, echo, send, recv):
    application.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        with plain_ending():
            write(f"proclink {proclink.__version__}\n".encode())
        raise typer.Exit


@application.callback()
def proclink_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Links two processes over pipes, shared memory or TCP."""


def run() -> int:
    """Runs the command that was asked for and gives its exit status."""
    try:
        application(prog_name="proclink")
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(bool(ending.code))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
