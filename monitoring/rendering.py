"""Evidently's HTML of a stored report, made when somebody asks for it, in a process of its own.

The console never imports Evidently: it would carry 300 MB for a page opened once a week. Rendered
pages are kept in the home folder's cache, the newest few.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

from monitoring.report_store import DriftReport
from whet.context import Context
from whet.errors import NotFoundError, WhetError
from whet.lines import split_lines

_log = logging.getLogger(__name__)

_TIMEOUT_S = 120  # an import takes 4 to 10 s on a busy machine, rendering 0.2 s
_KEPT = 20  # pages of about 4 MB

# The page carries its own scripts and styles. The sandbox gives it an origin of its own: no
# cookies, no console, no network.
POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' data:"
    " blob:; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; connect-src 'none';"
    " form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)


class RenderingError(WhetError):
    """Evidently's page could not be made."""

    code = "rendering"


def evidently_html(context: Context, report: DriftReport) -> bytes:
    """The page of one `drift_reports` row.

    Raises NotFoundError when the run stored no report, RenderingError when it cannot be made.
    """
    if not report.report_path:
        raise NotFoundError(
            f"The run {report.id} has no Evidently report: there was too little data, or it was"
            " an old quiet run.",
            hint="Open a newer run, or `whet drift run`.",
        )
    try:
        return _page(context, report.id).read_bytes()
    except FileNotFoundError:
        html = _rendered(context.store.read_bytes(report.report_path))
        keep_page(context, report.id, html)
        return html


def _rendered(snapshot: bytes) -> bytes:
    environment = {**os.environ, "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "monitoring.evidently_report"]
    try:
        done = subprocess.run(
            command,
            input=snapshot,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise RenderingError(
            f"Evidently took more than {_TIMEOUT_S} s to make the page.",
            hint="The machine is busy; try again later.",
        ) from error
    if done.returncode != 0:
        said = split_lines(done.stderr.decode(errors="replace").strip())
        raise RenderingError(
            f"Evidently could not make the page: {said[-1] if said else 'no reason given'}.",
            hint="`pip install 'whet[monitoring]'` installs what it needs.",
        )
    return done.stdout


def _page(context: Context, report_id: str) -> Path:
    return context.settings.home / "cache" / "drift" / f"{report_id}.html"


def keep_page(context: Context, report_id: str, html: bytes) -> None:
    """Keep a rendered page in the cache, and only the newest ones; a cache that cannot be written
    is done without.
    """
    path = _page(context, report_id)
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(html)
        os.replace(scratch, path)
        # Ids sort by time
        pages = sorted(path.parent.glob("*.html"), key=lambda page: page.name, reverse=True)
        for old in pages[_KEPT:]:
            old.unlink(missing_ok=True)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        _log.warning("A rendered page could not be kept in %s: %s", path.parent, error)


def forget_page(context: Context, report_id: str) -> None:
    """Remove the kept page of a report that is gone."""
    _page(context, report_id).unlink(missing_ok=True)
