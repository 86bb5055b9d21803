"""`peftsearch`: the command-line app, and errors as one sentence and an exit code."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Annotated

import typer

from peftsearch.cli.check import check
from peftsearch.cli.completion import join_colons
from peftsearch.cli.doctor import doctor
from peftsearch.cli.export import export
from peftsearch.cli.frontier import frontier
from peftsearch.cli.launch import launch
from peftsearch.cli.listing.ls import ls
from peftsearch.cli.predict import predict
from peftsearch.cli.report import report
from peftsearch.cli.search import search
from peftsearch.cli.show import show
from peftsearch.cli.status import status
from peftsearch.cli.terminal.console import print_error
from peftsearch.cli.terminal.interrupt import acknowledge_interrupts
from peftsearch.cli.train import train
from peftsearch.cli.worker import worker
from peftsearch.errors import PeftsearchError
from peftsearch.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="peftsearch",
    help="Find the best parameter-efficient fine-tuning configuration at every parameter budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    search,
    worker,
    status,
    frontier,
    report,
    export,
    train,
    predict,
    ls,
    show,
    check,
    doctor,
):
    app.command()(command)
app.add_typer(launch, name="launch")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"peftsearch {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find the best parameter-efficient fine-tuning configuration at every parameter budget."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command line; exits with 0, 1 (nothing feasible), 2 (usage), 3 (missing), 130."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code."""
    # Set before torch and the tokenizers are imported; a user's own setting stands.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may not know every character
        sys.stdout.reconfigure(errors="backslashreplace")
    join_colons(os.environ)
    try:
        with acknowledge_interrupts():
            code = app(arguments or ["--help"], standalone_mode=False)
        sys.stdout.flush()  # report a full disk here, not at Python's exit
    except PeftsearchError as error:
        print_error(str(error))
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        print_error("interrupted")
        return 130
    except BrokenPipeError:  # `| head` closed the pipe: nothing is wrong
        _forget_stdout()
        return 0
    except OSError as error:
        if error.filename is None:
            _forget_stdout()
        print_error(f"{error.filename or 'standard output or a file'}: {error.strerror or error}")
        return 3
    except MemoryError:
        print_error(
            "out of memory: use less data (--train-examples), or a machine with more memory"
        )
        return 3
    except Exception as error:
        # Typer's usage errors are click's, under a private name.
        sentence = getattr(error, "format_message", None)
        if sentence is None:
            raise
        print_error(f"{sentence()} (see peftsearch --help)")
        return 2
    if code == 130:
        print_error("interrupted")  # Typer makes an exit code of Ctrl-C, and says nothing
    return code if isinstance(code, int) else 0


def _forget_stdout() -> None:
    """Point stdout at /dev/null: Python flushes it once more as it ends, and would fail again."""
    with contextlib.suppress(OSError, ValueError):  # not a real file: nothing is tried again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
