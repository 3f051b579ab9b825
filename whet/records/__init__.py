"""What JSON columns hold: one module per package that writes them, one shape per column."""
