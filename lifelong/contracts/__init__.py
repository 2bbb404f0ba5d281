"""What `lifelong check` runs: the promises that every learner, stream, network and initialisation must keep."""
