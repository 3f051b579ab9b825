"""What the Python drivers share: their arguments, a tool and a schema, and how they report.

A driver is run as `python driver.py BASE_URL API_KEY MODEL [--only API.CHECK ...]` in the
environment that holds its client. It prints one line of JSON for each check:
{"api", "check", "ok", "detail", "seconds"}.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
import unittest
from typing import Any, Literal

from pydantic import BaseModel

BASE_URL, API_KEY, MODEL = sys.argv[1:4]
ONLY = set(sys.argv[5:])  # after `--only`

QUESTION = "What is the capital of France?"
WEATHER_QUESTION = "What is the weather in Bonn?"
TICKET_QUESTION = (
    "Sort this ticket: the screen of my tablet is broken since this morning. Answer in JSON."
)


class Ticket(BaseModel):
    """A support ticket."""

    category: Literal["hardware", "billing", "other"]
    urgent: bool


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"It is sunny in {city}, with 21 degrees."


GET_WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class _JsonLines(unittest.TestResult):
    """Prints each check's outcome as it ends; the last line of an error is its detail."""

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._began = time.monotonic()
        self._detail = ""

    def _failed(self, test: unittest.TestCase, error: Any) -> None:
        self._detail = "".join(traceback.format_exception_only(error[0], error[1])).strip()[:2000]
        traceback.print_exception(*error, file=sys.stderr)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self._failed(test, err)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self._failed(test, err)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        line = {
            "api": type(test).__name__,
            "check": test._testMethodName.removeprefix("test_"),
            "ok": not self._detail,
            "detail": self._detail,
            "seconds": round(time.monotonic() - self._began, 2),
        }
        print(json.dumps(line), flush=True)


def main(*apis: type[unittest.TestCase]) -> None:
    """Run the checks of each API the client speaks, in the order of the alphabet."""
    suite = unittest.TestSuite()
    for api in apis:
        for name in unittest.defaultTestLoader.getTestCaseNames(api):
            if not ONLY or f"{api.__name__}.{name.removeprefix('test_')}" in ONLY:
                suite.addTest(api(name))
    suite.run(_JsonLines())
