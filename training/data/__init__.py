"""Rows from files, checked, cleaned, split without leaks, and made more of."""
