"""The demo's reviewer: a script that looks the policy up, through the same HTTP interface that the
review page uses.

It reads the question from the conversation it is shown, looks the facts up in the new policy, and
approves or edits. What it cannot look up it skips. It sees nothing that a person at the page would
not see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from examples.zenith.scenario import World, checks, look_up, reference_answer, score
from whet.errors import ProcessError


@dataclass
class Tally:
    approved: int = 0
    edited: int = 0
    skipped: int = 0

    @property
    def examples(self) -> int:
        return self.approved + self.edited


class PolicyReviewer:
    """A user of role `reviewer` who works through the queue over HTTP."""

    def __init__(self, console: str, name: str, password: str, world: World) -> None:
        self._http = httpx.Client(base_url=console, auth=(name, password), timeout=60)
        self._world = world
        self.tally = Tally()

    def review_next(self) -> bool:
        """One conversation. False when the queue is empty."""
        response = self._http.get("/api/review/next")
        if response.status_code == 204 or (
            response.status_code == 200 and not response.json().get("item")
        ):
            return False
        item = _checked(response).json()["item"]
        decision = self._judge(item["messages"], item["answer"] or "")
        _checked(self._http.post(f"/api/review/{item['item_id']}", json=decision))
        return True

    def _judge(self, messages: list[dict[str, str]], answer: str) -> dict[str, Any]:
        question = next(
            (message["content"] for message in reversed(messages) if message["role"] == "user"), ""
        )
        expected = look_up(question, self._world)
        if expected is None:
            self.tally.skipped += 1
            return {"decision": "skip", "note": "The policy says nothing about this."}
        if score(expected, answer).right:
            self.tally.approved += 1
            return {"decision": "approve", "checks": checks(expected)}
        self.tally.edited += 1
        return {
            "decision": "edit",
            "answer": reference_answer(expected),
            "checks": checks(expected),
        }

    def close(self) -> None:
        self._http.close()


def _checked(response: httpx.Response) -> httpx.Response:
    if response.status_code >= 400:
        raise ProcessError(
            f"{response.request.method} {response.request.url.path} answered"
            f" {response.status_code}: {response.text[:300]}"
        )
    return response
