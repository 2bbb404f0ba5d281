"""Tasks that are learned together: their weights, and surgery on their gradients."""
