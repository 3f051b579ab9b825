"""Training: from rows to a judged, stored adapter.

The only package that imports torch and its relatives.
"""
