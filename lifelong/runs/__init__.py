"""A run as words: its request, its execution, its folder on disk, and what is read back from it."""
