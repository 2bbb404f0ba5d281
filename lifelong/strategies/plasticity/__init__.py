"""Strategies that keep a network able to learn what comes next, over many tasks."""
