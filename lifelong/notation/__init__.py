"""Names and text to objects, and back: registry, expressions, values that vary, a user's own files. Knows no method."""
