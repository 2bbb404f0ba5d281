"""Tasks that are learned together: their weights, surgery on their gradients, and networks that are told the task."""
