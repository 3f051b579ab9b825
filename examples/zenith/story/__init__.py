"""The parts of `make demo`: the product as a user starts it, a client that counts, a reviewer, and
the report.
"""
