"""What the plugin for the CPU engine's LoRA layers saves."""
