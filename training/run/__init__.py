"""What surrounds the loop: checkpoints and resuming, diagnostics, translated faults, estimates,
trackers, searches, places to run.
"""
