"""What is known about a version beyond its gate: measures by task, probes, another model's opinion,
a person's signature, the report.
"""
