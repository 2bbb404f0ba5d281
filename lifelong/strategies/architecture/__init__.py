"""Strategies that give each task its share of the network."""
