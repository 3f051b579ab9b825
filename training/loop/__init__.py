"""The training loop: batches, optimisation, checkpoints, diagnostics, processes."""
