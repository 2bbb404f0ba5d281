"""Many runs that answer one question: paradigms side by side, transfer between tasks, published tables."""
