"""The built-in base model: the corpus it learns from, its tokenizer, its pre-training and its
probe.
"""
