"""False alarms, delays and cost of change detection in simulated services, against what others do
by default.
"""
