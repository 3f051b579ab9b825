"""A run before its first step: rows as tokens, estimates, identity; and who is told of it."""
