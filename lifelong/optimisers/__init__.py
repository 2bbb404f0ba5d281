"""Optimisers as frozen records, each in two forms: pure, and in place on a fleet's stacked tensors. One rule a file."""
