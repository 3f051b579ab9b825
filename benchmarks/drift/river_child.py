"""Runs in river's environment: streams in, days with a detection out, as JSON. Imports nothing of
this project.
"""

import json
import sys

import numpy as np
from river import drift

with np.load(sys.argv[1]) as loaded:
    lengths = loaded["lengths"]
    streams = {name: loaded[name] for name in loaded.files if name != "lengths"}
day_of = np.repeat(np.arange(len(lengths)), lengths)
found = {}
for name, make in (("adwin", drift.ADWIN), ("page_hinkley", drift.PageHinkley)):
    alarms = [False] * len(lengths)
    for values in streams.values():
        detector = make()
        for day, value in zip(day_of.tolist(), values.tolist(), strict=True):
            if value == value:  # not NaN
                detector.update(value)
                if detector.drift_detected:
                    alarms[day] = True
    found[name] = alarms
print(json.dumps(found))
