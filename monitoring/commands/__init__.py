"""What the commands of this package do, one file per group of commands that need the same."""
