"""What `whet up` shows: one line per thing that happened, and on a terminal a last line that says
what it waits for.
"""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.status import Status


class Terminal:
    """Lines on any output; a live line with elapsed time where the output is a terminal."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._began = clock()
        self._status: Status | None = None

    def line(self, name: str, text: str, style: str = "") -> None:
        """`12.3 s  engine     ready after 48 s`."""
        stamp = f"{self._clock() - self._began:6.1f} s"
        body = f"[{style}]{escape(text)}[/{style}]" if style else escape(text)
        self._console.print(
            f"[dim]{stamp}[/dim]  [bold]{escape(name):<11}[/bold] {body}", soft_wrap=True
        )

    def waiting(self, text: str) -> None:
        """Replace the live line; '' takes it away."""
        if not text or not self._console.is_terminal:
            self.close()
        elif self._status is None:
            self._status = self._console.status(escape(text))
            self._status.start()
        else:
            self._status.update(escape(text))

    def close(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
