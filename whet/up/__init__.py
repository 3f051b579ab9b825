"""`whet up`: starts the processes of the product on one machine, keeps them up, and stops them
cleanly.
"""
