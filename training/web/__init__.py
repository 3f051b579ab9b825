"""Pages of votes and answers, and the words of run pages."""
