"""How work ends that was asked to stop; light, so that the command line knows it without torch."""

from __future__ import annotations


class Stopped(Exception):
    """The work was asked to stop, and what it had is saved; its message says what goes on."""
