"""Tests of `training`."""

from training.imports import prepare_transformers

prepare_transformers()  # torch and transformers read it when they are imported
