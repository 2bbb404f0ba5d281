"""The one kind of error that is meant for people."""

from __future__ import annotations


class ConfigurationError(ValueError):
    """A request that cannot be honoured: one line that says what was wrong and what would be right. Exit code 2."""

    exit_code = 2
