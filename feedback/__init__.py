"""Feedback: flags, the review queue, examples, dataset versions, and the policy that asks for
retraining.
"""
