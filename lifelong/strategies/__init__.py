"""One file a method; every public strategy in here is found by itself."""
