"""Strategies that hold a network's answers near those of an earlier network."""
