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
FAILED = 1  # the exit code of work that began, and could not be finished
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
    """The console script: errors become one line, and an exit code.

    2 for what cannot be asked or read, 1 for work that failed, diverged or was stopped, 130 after Ctrl-C, else 0.
    """
    warnings.showwarning = _warned
    try:
        code = app(prog_name="lifelong", standalone_mode=False)
    except ConfigurationError as error:
        code = _refused(str(error), error.exit_code)
    except UsageError as error:
        code = _refused(error.format_message())
    except Stopped as error:
        sys.stderr.write(f"stopped, and saved: {error}\n")
        code = 1
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BaseException as error:
        code = _raised(error)
    sys.exit(code if isinstance(code, int) else 0)


def _raised(error: BaseException) -> int:
    """The exit code of what a user's own code raised while it worked, in one line; whatever else it is goes on."""
    from lifelong.notation.user_code import users_line

    words = users_line(error)
    if not words:
        raise error
    return _refused(f"{words}; `lifelong check FILE.py` says how to mend it", FAILED)


def _warned(message: Warning | str, *place: object) -> None:
    """A warning is a line for a person, too; where in the code it arose says nothing to him."""
    sys.stderr.write(f"warning: {' '.join(str(message).split())}\n")


def _refused(words: str, code: int = 2) -> int:
    line = " ".join(words.split())
    sys.stderr.write(f"error: {''.join(c if c.isprintable() else repr(c)[1:-1] for c in line)}\n")
    return code


if __name__ == "__main__":
    main()
