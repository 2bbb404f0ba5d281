"""Transfer from task to task: its matrix, distillation, pairs of tasks. One idea a file."""
