"""Rows of tables, published or aimed at, run again by `lifelong reproduce`."""
