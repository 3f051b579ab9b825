"""What surrounds the loop: checkpoints and resuming, signs of trouble, faults in words, estimates, trackers, searches, places to run."""
