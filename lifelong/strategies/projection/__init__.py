"""Strategies that change the direction of a gradient so that earlier tasks are not harmed."""
