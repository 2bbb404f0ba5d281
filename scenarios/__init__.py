"""Data and streams of tasks; knows torch and numpy, and nothing above."""
