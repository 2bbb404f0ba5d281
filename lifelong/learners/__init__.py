"""Learners that descend no gradient of ours, one file each; every public one in here is found by itself."""
