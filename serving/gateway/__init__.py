"""The OpenAI-compatible endpoint that applications talk to."""
