"""Rules of the review queue that the gateway tells applications about: feedback keeps them, serving
says them.
"""

from __future__ import annotations

from typing import Literal

RATING_LOOKBACK_DAYS = 14  # older unhappiness is about versions that are gone

# Why an answer with feedback is not in the queue although its rating asks for it.
LeftOutCode = Literal["budget", "end_user", "similar", "incomplete", "erased"]
# Limits of a day: the next day (UTC) looks at such answers again.
DAILY_LIMITS: frozenset[LeftOutCode] = frozenset({"budget", "end_user", "similar"})
