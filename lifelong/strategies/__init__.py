"""Methods that are written as verbs of a strategy, one file each, by family; every public one in here is found by itself."""
