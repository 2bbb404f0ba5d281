"""Strategies that hold parameters near those that earlier tasks found."""
