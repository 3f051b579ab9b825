"""What the console costs with a million interactions: searches, pages, open tabs."""
