"""The command line of this package, one file per group of commands."""
