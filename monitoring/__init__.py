"""Monitoring: drift and quality of the logged traffic.

The only package that imports Evidently and pandas.
"""
