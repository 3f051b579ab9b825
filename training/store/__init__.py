"""What training writes to the database and the store: runs, requests, adapter versions."""
