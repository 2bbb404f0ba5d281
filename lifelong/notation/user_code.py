"""A user's own Python files: which of them may be executed, how they are loaded, and where in them an error arose.

A file is executed only if the user names it himself in this call (`name_files`), or if a list outside every run folder
holds the hash of its bytes, written when he did so before. Text that was read from a file names nothing: a run folder, a
start's file, a configuration or data can ask for code, and never make it run. What is hashed is what is executed.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import itertools
import json
import os
import re
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scenarios.disk import read_plain, reason
from scenarios.errors import ConfigurationError

CODE = re.compile(r"(?<![^\s()+,'\"=])([^\s()+,'\"=]+\.py):([A-Za-z_]\w*)")  # my_idea.py:MyIdea
LONGEST = 2**20  # bytes of a file of code
FILES: dict[str, str] = {}  # path of each file that was executed -> hash of its content
PLACES: dict[str, str] = {}  # where a file lies that a run named from another folder, by the name it gave
_NAMED: set[str] = set()  # files that the user named in this call, resolved
_RAN: set[str] = set()  # hashes of what he ran in this process
_MODULES: dict[tuple[str, str], types.ModuleType] = {}


class UserCodeError(ConfigurationError):
    """A user's file that may not be executed or cannot be loaded; its message is one line."""


class TrustWarning(UserWarning):
    """The list of trusted files cannot be written."""


def code_named(texts: Iterable[str]) -> list[str]:
    """The Python files that some expressions name, as in `my_idea.py:MyIdea()`."""
    return list(dict.fromkeys(match[1] for text in texts for match in CODE.finditer(text)))


def name_files(words: Iterable[str]) -> None:
    """Take the files that these words name for named by the user: call it with the words of the command line alone.

    A word that is itself a path is none of his expressions: a pattern of the shell may have put it there.
    """
    for path in code_named(word for word in words if not os.path.exists(word)):
        _NAMED.add(_resolved(path))


def is_named(path: str) -> bool:
    """Whether the user named this file in this call."""
    return _resolved(PLACES.get(path, path)) in _NAMED


def _resolved(path: str) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return path


def refuse_unnamed(texts: Iterable[str], source: object) -> None:
    """Raise UserCodeError where texts from a file that never loads code name a file that the user did not name."""
    for path in code_named(texts):
        if not is_named(path):
            raise UserCodeError(
                f"{source} asks for the code in {path}, and such a file never loads code: name {path} yourself"
            )


# --- the list of what the user ran ------------------------------------------------------------------------------------


def trust_list() -> Path:
    """$LIFELONG_CONFIG/trusted.txt, else in the user's folder of configurations: a hash and a path in each line."""
    named, shared = os.environ.get("LIFELONG_CONFIG", ""), os.environ.get("XDG_CONFIG_HOME", "")
    if named:
        return Path(named) / "trusted.txt"
    # a relative folder would let whoever wrote the present one decide
    folder = Path(shared) if os.path.isabs(shared) else Path(os.path.expanduser("~")) / ".config"
    return folder / "lifelong" / "trusted.txt"


def is_trusted(digest: str) -> bool:
    """Whether the user ran a file of these bytes, ever."""
    if digest in _RAN:
        return True
    try:
        return any(
            line.split(maxsplit=1)[:1] == [digest]
            for line in read_plain(trust_list()).decode(errors="replace").splitlines()
        )
    except (OSError, ValueError):
        return False


def trust(digest: str, path: str) -> None:
    """Remember that the user ran these bytes. Lines are added whole, so that runs side by side lose none."""
    if is_trusted(digest):
        return
    _RAN.add(digest)
    file = trust_list()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as stream:
            stream.write(f"{digest}  {json.dumps(os.path.abspath(path))}\n")
    except OSError as error:
        warnings.warn(
            f"{file} cannot be written ({error.strerror}): a saved run that needs {path} will not load it; set"
            " LIFELONG_CONFIG to a folder of yours",
            TrustWarning,
            stacklevel=2,
        )


# --- loading ----------------------------------------------------------------------------------------------------------


def read_trusted(path: str, named_by_user: bool = False) -> tuple[bytes, str]:
    """The bytes of a file and their hash, once it is sure that they may be executed. Raises UserCodeError otherwise."""
    content = _content(path)
    digest, place = hashlib.sha256(content).hexdigest(), PLACES.get(path, path)
    if named_by_user or is_named(path):
        trust(digest, place)
    elif not is_trusted(digest):
        raise UserCodeError(
            f"{path} is named by a saved file, and is not code that you ran here: it was not executed. Read it, and if"
            f" you trust it, run `lifelong check {place}` first"
        )
    return content, digest


def digest_of(path: str) -> str:
    """The hash of a file's bytes; nothing in it is executed."""
    return hashlib.sha256(_content(path)).hexdigest()


def _content(path: str) -> bytes:
    try:
        return read_plain(PLACES.get(path, path), LONGEST)
    except OSError as error:
        raise UserCodeError(f"{path}: cannot be read ({reason(error)})") from None


def load_file(path: str, named_by_user: bool = False) -> types.ModuleType:
    """The module in a user's file, loaded once for each content: exactly the bytes that were hashed are executed.

    Raises UserCodeError where it may not be executed, or cannot be loaded.
    """
    content, digest = read_trusted(path, named_by_user)
    FILES[path] = digest[:16]
    if (path, digest) not in _MODULES:
        name = f"lifelong_plugin_{hashlib.sha256(f'{path} {digest}'.encode()).hexdigest()[:16]}"
        module = types.ModuleType(name)
        module.__file__ = path
        sys.modules[name] = module  # dataclasses look their module up
        try:
            with in_one_line(lambda error: UserCodeError(_load_words(error, path))):
                exec(compile(content, path, "exec", dont_inherit=True), vars(module))
        except BaseException as error:
            del sys.modules[name]
            if isinstance(error, UserCodeError) or not isinstance(error, ConfigurationError):
                raise
            raise UserCodeError(f"{path}: {error}") from None
        _MODULES[path, digest] = module
    return _MODULES[path, digest]


def _load_words(error: BaseException, path: str) -> str:
    if isinstance(error, SyntaxError) and error.filename in (path, None):
        return f"{path}: line {error.lineno}: {error.msg}"
    return user_line(error, path)


def from_file(path: str, name: str, named_by_user: bool = False) -> Any:
    """What a user's file itself calls `name`; a class bears the path in its repr from now on.

    What it only imported is refused: text from a saved run must not reach through a trusted file to other code.
    """
    module = load_file(path, named_by_user)
    if name not in vars(module):
        public = [key for key, value in vars(module).items() if not key.startswith("_") and _is_own(value, module)]
        raise UserCodeError(f"{path}: has no {name!r}: {suggest(name, public)}")
    value = vars(module)[name]
    if not _is_own(value, module):
        raise UserCodeError(f"{path}: {name} is imported there, and not written there: name the file that defines it")
    if inspect.isclass(value):
        value.__qualname__ = f"{path}:{name}"
    return value


def _is_own(value: Any, module: types.ModuleType) -> bool:
    """Whether a file defines a value: a class or function of its own, or a plain object that it made."""
    if inspect.isclass(value) or inspect.isroutine(value):
        return getattr(value, "__module__", None) == module.__name__
    return not inspect.ismodule(value)


MOST_NAMES = 160  # characters of names in one line


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of an error's sentence: the nearest valid name, or all of them, the nearer ones where they are many."""
    name, known = name[:100], sorted(known)
    near = difflib.get_close_matches(name, known, 1, 0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    if not known:
        return "it has none"
    if len(", ".join(known)) <= MOST_NAMES:
        return f"there are {', '.join(known)}"
    nearer = sorted(known, key=lambda word: -difflib.SequenceMatcher(None, word, name).quick_ratio())
    count = max(1, sum(end <= MOST_NAMES for end in itertools.accumulate(len(word) + 2 for word in nearer)))
    return f"there are {', '.join(nearer[:count])} ... and {len(known) - count} more"


# --- errors in them ---------------------------------------------------------------------------------------------------


@contextmanager
def in_one_line(refusal: Callable[[BaseException], Exception]) -> Iterator[None]:
    """Call user code in here: whatever it raises becomes what `refusal` makes of it; Ctrl-C goes through.

    What is one line for a person already stays as it is.
    """
    try:
        yield
    except (KeyboardInterrupt, ConfigurationError):
        raise
    except BaseException as error:  # a user's code may raise anything at all, and end the program
        raise refusal(error) from None


def words_of(error: BaseException, longest: int = 150) -> str:
    """An error in one line: its kind and the beginning of what it says; of more letters than a line has, all of it."""
    try:
        lines = str(error).strip()[:longest].splitlines()
    except Exception:  # it is a class of the user's own
        lines = []
    said = (
        f"{type(error).__name__}: {lines[0] if longest < 1000 else ' '.join(lines)}" if lines else type(error).__name__
    )
    ends = " (it ends the program, and code that is called must not)" if isinstance(error, SystemExit) else ""
    return said + ends


def user_line(error: BaseException, path: str) -> str:
    """FILE:LINE: what happened, where LINE is the last one of the user's file that an error came through.

    Without such a line, as where torch refuses what the file described, it is the file alone.
    """
    place = _resolved(PLACES.get(path, path))
    lines = [
        number
        for frame, number in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == path or _resolved(frame.f_code.co_filename) == place
    ]
    return f"{path}:{lines[-1]}: {words_of(error)}" if lines else f"{path}: {words_of(error)}"


def users_line(error: BaseException) -> str:
    """The same of whichever user's file an error came through last; "" where it came through none."""
    loaded = {module.__file__ for module in _MODULES.values()}
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    passed = [file for file in files if file in loaded]
    return user_line(error, passed[-1]) if passed else ""


def file_of(maker: Any) -> str:
    """The user's file that defines a class, as it was named; "" for a class of an installed package."""
    module = sys.modules.get(getattr(maker, "__module__", None) or "")
    return module.__file__ or "" if module and module in _MODULES.values() else ""


def misspelt_verbs(kind: type, verbs: Iterable[str]) -> list[tuple[str, str]]:
    """The public methods of a class that nobody calls, because a letter is wrong: (as written, the verb it looks like)."""
    verbs = list(verbs)
    missing = [verb for verb in verbs if verb not in vars(kind)]
    found = []
    for name, value in vars(kind).items():
        if name.startswith("_") or name in verbs or not inspect.isfunction(value):
            continue
        near = difflib.get_close_matches(name, missing, 1, 0.8)
        found += [(name, near[0])] if near else []
    return found
