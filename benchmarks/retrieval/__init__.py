"""Retrieval: recall on a manual, speed of engines and embedders."""
