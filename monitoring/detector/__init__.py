"""Change detection by day: each day of an alias against its own history.

Pure: no database, no clock, no global state.
"""
