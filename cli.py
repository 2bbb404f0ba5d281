"""The command line: its words become a command, which is imported only then; errors become one line and an exit code."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, Any

import typer

from lifelong.commands.group import PAGE, PLAIN, AllCommands
from lifelong.core.stopped import Stopped
from scenarios.errors import ConfigurationError

UsageError: Any = typer.BadParameter.__bases__[0]  # what typer raises for words that it cannot read
app = typer.Typer(cls=AllCommands, context_settings=PAGE, **{**PLAIN, "add_completion": True})


def _version(asked: bool) -> None:
    if asked:
        from scenarios.public import version

        typer.echo(f"lifelong {version()}")
        raise typer.Exit


@app.callback()
def overview(
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Continual learning: streams of tasks, learned by a fleet of seeds, measured.

    Example: lifelong run split-digits --strategy "Replay(size=200)"
    """
    from lifelong.notation.user_code import name_files

    name_files(sys.argv[1:])


def main() -> None:
    """The console script: errors become one line, and exit codes 0, 1 and 2, or 130 after Ctrl-C."""
    warnings.showwarning = _warned
    try:
        code = app(prog_name="lifelong", standalone_mode=False)
    except ConfigurationError as error:
        code = _refused(str(error))
    except UsageError as error:
        code = _refused(error.format_message())
    except Stopped as error:
        sys.stderr.write(f"stopped, and saved: {error}\n")
        code = 1
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    sys.exit(code if isinstance(code, int) else 0)


def _warned(message: Warning | str, *place: object) -> None:
    """A warning is a line for a person, too; where in the code it arose says nothing to him."""
    sys.stderr.write(f"warning: {' '.join(str(message).split())}\n")


def _refused(words: str) -> int:
    sys.stderr.write(f"error: {' '.join(words.split())}\n")
    return 2


if __name__ == "__main__":
    main()
