"""Ways to train: one registry of records, one small module per family, one recipe file per method."""
