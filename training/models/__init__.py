"""Base models and LoRA: loading, tokens, templates, fingerprints."""
