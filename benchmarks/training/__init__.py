"""How fast training is beside plain Trainer and TRL, how well its memory is estimated, and how good
its adapters are.
"""
