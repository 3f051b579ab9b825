"""The interaction log: one row for every answer, on disk before the answer's last byte leaves."""
