"""Retrieval: collections of documents, their indexes, and the search that the gateway asks."""
