"""The command line: its words become a command, which is imported only then; errors become one line and an exit code.

| code | what it says |
|---|---|
| 0 | it was done |
| 1 | it was begun and is not whole: stopped and saved, seeds that diverged, a full disk, too little memory |
| 2 | it was refused before anything was done: words, files or values that are not right, or a check that fails |
| 130 | it was interrupted by Ctrl-C where nothing was to be saved |

A Ctrl-C is heard at any moment, and a second one ends the process at once.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import warnings
from types import FrameType
from typing import Annotated, Any

import typer

from lifelong.commands.group import PAGE, PLAIN, AllCommands
from lifelong.core.stopped import Stopped
from scenarios.errors import ConfigurationError, in_a_line

UsageError: Any = typer.BadParameter.__bases__[0]  # what typer raises for words that it cannot read
OF_WORDS = (errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.EACCES)
NO_MEMORY = ("not enough memory", "out of memory", "allocate memory")
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
    """The console script: errors become one line, and an exit code of the table above."""
    warnings.showwarning = _warned
    in_main = threading.current_thread() is threading.main_thread()  # only there may signals be handled
    before = signal.signal(signal.SIGINT, _interrupted) if in_main else None
    try:
        sys.exit(_code_of(sys.argv[1:]))
    except BrokenPipeError:  # who read the output, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)


def _code_of(words: list[str]) -> int:
    """The exit code of a command line, and a line on standard error where it failed."""
    try:
        for word in words:
            _check_word(word)
        code = app(prog_name="lifelong", standalone_mode=False)
        sys.stdout.flush()
    except ConfigurationError as error:
        return _refused(str(error), error.exit_code)
    except UsageError as error:
        return _refused(error.format_message())
    except Stopped as error:
        sys.stderr.write(f"{in_a_line(f'stopped, and saved: {error}')}\n")
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        raise
    except OSError as error:
        words_of_it = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
        return _refused(words_of_it, 2 if error.errno in OF_WORDS else FAILED)
    except BaseException as error:
        if _is_out_of_memory(error):
            return _refused("there is not enough memory: take a smaller --model, --batch or --fleet", FAILED)
        return _raised(error)
    return code if isinstance(code, int) else 0


def _check_word(word: str) -> None:
    """Raise a ConfigurationError for what is no text; a name or a file's text could not hold it."""
    if "\0" in word or (not word.isascii() and any("\ud800" <= character <= "\udfff" for character in word)):
        raise ConfigurationError(f"{word!r} is no text: it holds a null byte, or bytes that are not UTF-8")


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Ctrl-C: what is under way ends; if it does not, a second one ends the process without asking it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was refused, by Python, numpy or torch."""
    words = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(said in words for said in NO_MEMORY)
    )


def _raised(error: BaseException) -> int:
    """The exit code of what a user's own code raised while it worked, in one line; whatever else it is goes on."""
    from lifelong.notation.user_code import users_line

    words = users_line(error)
    if not words:
        raise error
    return _refused(f"{words}; `lifelong check FILE.py` says how to mend it", FAILED)


def _warned(message: Warning | str, *place: object) -> None:
    """A warning is a line for a person, too; where in the code it arose says nothing to him."""
    sys.stderr.write(f"{in_a_line(f'warning: {message}')}\n")


def _refused(words: str, code: int = 2) -> int:
    sys.stderr.write(f"error: {in_a_line(words)}\n")
    return code


if __name__ == "__main__":
    main()
