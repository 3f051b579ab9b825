"""The product, started and driven as a user does: `whet up`, `whet … --json`, and the console over
HTTP.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from whet.errors import ConfigurationError, ProcessError
from whet.settings import load_settings

T = TypeVar("T")


class Product:
    """One installation in its own home folder, with its own settings given through the environment."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.environment = {**os.environ, **environment, "WHET_HOME": str(home)}
        settings = load_settings(home=home)
        self.gateway = (
            f"http://127.0.0.1:{environment.get('WHET_GATEWAY_PORT', settings.gateway_port)}"
        )
        self.console = (
            f"http://127.0.0.1:{environment.get('WHET_CONSOLE_PORT', settings.console_port)}"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._console: httpx.Client | None = None

    def start(self, *, timeout_s: float) -> None:
        """`whet up`, until the gateway says that it can answer.

        Raises ProcessError with what `whet up` said.
        """
        log = self.home / "demo-up.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "whet.cli", "up"],
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

        def ready() -> bool:
            if self._process is not None and self._process.poll() is not None:
                last = log.read_text(errors="replace")[-2000:].strip()
                code = self._process.returncode
                kind = ConfigurationError if code == ConfigurationError.exit_code else ProcessError
                raise kind(f"`whet up` ended with code {code}: {last}")
            return answers(f"{self.gateway}/readyz") and answers(f"{self.console}/healthz")

        wait_for(ready, "the product to be ready", timeout_s=timeout_s, every_s=0.5)

    def stop(self) -> None:
        """Ctrl-C, as a user would."""
        if self._console is not None:
            self._console.close()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def run(self, *arguments: str) -> Any:
        """`whet ARGUMENTS --json`. Raises ProcessError with the command's own sentence."""
        done = subprocess.run(
            [sys.executable, "-m", "whet.cli", *arguments, "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise ProcessError(
                f"`whet {' '.join(arguments)}` ended with code {done.returncode}:"
                f" {(done.stderr or done.stdout).strip()[-2000:]}"
            )
        return json.loads(done.stdout) if done.stdout.strip() else None

    def run_plain(self, *arguments: str, given: str | None = None) -> str:
        """`whet ARGUMENTS` without `--json`; `given` goes to its standard input."""
        done = subprocess.run(
            [sys.executable, "-m", "whet.cli", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            input=given,
        )
        if done.returncode != 0:
            raise ProcessError(
                f"`whet {' '.join(arguments)}` ended with code {done.returncode}:"
                f" {(done.stderr or done.stdout).strip()[-2000:]}"
            )
        return done.stdout

    def look(self, path: str, **parameters: str) -> Any:
        """JSON from the console, as the admin.

        A look costs milliseconds, a command a second of one core.
        """
        if self._console is None:
            password = (self.home / "admin.password").read_text().strip()
            self._console = httpx.Client(
                base_url=self.console, auth=("admin", password), timeout=60
            )
        answer = self._console.get(path, params=parameters)
        if answer.status_code != 200:
            raise ProcessError(f"GET {path} answered {answer.status_code}: {answer.text[:300]}")
        return answer.json()

    @property
    def key(self) -> str:
        """The application key that the first start made."""
        return (self.home / "api.key").read_text().strip()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def wait_for(
    probe: Callable[[], T | None], what: str, *, timeout_s: float, every_s: float = 1.0
) -> T:
    """The first truthy value of `probe`.

    Raises ProcessError that names what did not happen in time.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(every_s)
    raise ProcessError(
        f"Waited {timeout_s:.0f} s for {what}, and it did not happen.",
        hint="The logs are in the demo's home folder under logs/.",
    )
