"""The light shared core of Whet: settings, records, database, store, web shell and command line.

Nothing here imports torch, vllm, evidently or pandas.
"""

__version__ = "0.1.0"
