"""Transfer: adapting what was learned to a new task, measuring it in a few examples, distilling it. One idea a file."""
