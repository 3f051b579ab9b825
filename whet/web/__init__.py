"""The console: one shell, with pages that the packages contribute (entry points `whet.pages`)."""
