"""Strategies that step ahead on a copy of the weights, and move the weights by what they meet there."""
