"""What the gateway costs, beside a direct connection, LiteLLM's proxy and vllm-router.

Run: `python -m benchmarks.gateway`.
"""
