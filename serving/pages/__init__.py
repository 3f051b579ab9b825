"""Pages of the console about what was served: Traffic, Adapters, Playground."""
