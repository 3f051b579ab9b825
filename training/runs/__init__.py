"""Runs from plan to version: pipeline, processes, searches, Ray, trackers."""
