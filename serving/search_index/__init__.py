"""The full-text index of the interaction log: what is indexed, and how it is kept and asked."""
