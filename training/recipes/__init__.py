"""Recipes and methods as plain data; each method has a recipe file here."""
