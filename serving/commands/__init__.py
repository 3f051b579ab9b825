"""Commands of serving: one module a group."""
