"""Measurements of Whet against its peers, with the recorded results."""
