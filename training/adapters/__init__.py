"""Adapter folders: what comes in from other trainers, what is merged, what goes out."""
