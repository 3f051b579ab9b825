"""Serving: the gateway, the engine replicas behind it, rollouts, retrieval and the interaction log."""
