"""Says for a bad answer which part to repair: document, index, prompt, adapter or base."""
