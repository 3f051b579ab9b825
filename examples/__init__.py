"""Examples that run with the product."""
