"""Starts the workers that read uploads, one process per collection, and ends them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading

from serving.retrieval.uploads import UploadFolder, all_uploads
from whet.context import Context

_GIVE_UP_AFTER = 3  # runs that end without having read anything
_MOST_AT_ONCE = 4  # processes, each with an embedder; more collections wait
_STOP_S = 5.0  # a worker writes nothing that a kill would break; this is for its exit alone
_log = logging.getLogger(__name__)


class UploadRunner:
    """Keeps a worker running for each collection that has work."""

    def __init__(self, context: Context, *, most_at_once: int = _MOST_AT_ONCE) -> None:
        self._context = context
        self._free = threading.Semaphore(most_at_once)
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._is_closed = False

    def resume(self) -> None:
        """Go on with what was interrupted, at the console's start."""
        for name, uploads in all_uploads(self._context.settings.home).items():
            uploads.remove_remains()
            if uploads.has_work():
                self.wake(name)

    def wake(self, name: str) -> None:
        """Let a worker do what there is to do for a collection."""
        with self._lock:
            if self._is_closed or name in self._threads:
                return
            thread = threading.Thread(target=self._run, args=(name,), daemon=True)
            self._threads[name] = thread
            thread.start()

    def is_running(self, name: str) -> bool:
        """Tell whether a worker of this console is at work on a collection."""
        return name in self._threads

    def stop(self, name: str) -> None:
        """End the worker of a collection; what waits goes on waiting."""
        with self._lock:
            process = self._processes.get(name)
        if process is not None:
            _end(process)

    def close(self) -> None:
        """End all workers, for the console's own end."""
        with self._lock:
            self._is_closed = True
            processes = list(self._processes.values())
        for process in processes:
            _end(process)

    def wait(self, name: str, timeout_s: float) -> None:
        """Wait until the worker of a collection has nothing to do any more."""
        thread = self._threads.get(name)
        if thread is not None:
            thread.join(timeout_s)

    def _run(self, name: str) -> None:
        uploads = UploadFolder(self._context.settings.home, name)
        idle = 0
        while True:
            before = len(uploads.waiting())
            with self._free:
                self._start_and_wait(name)
            idle = idle + 1 if len(uploads.waiting()) == before else 0
            with self._lock:  # `wake` starts another once this one is not listed
                if self._is_closed or idle >= _GIVE_UP_AFTER or not uploads.has_work():
                    self._threads.pop(name, None)
                    return

    def _start_and_wait(self, name: str) -> None:
        with self._lock:
            if self._is_closed:
                return
            process = subprocess.Popen(
                [sys.executable, "-m", "serving.retrieval.upload_worker", name],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=self._environment(),
            )  # fmt: skip
            self._processes[name] = process
        status = process.wait()
        with self._lock:
            self._processes.pop(name, None)
        uploads = UploadFolder(self._context.settings.home, name)
        is_removed = not uploads.folder.is_dir()  # with its collection
        if status == 0 or self._is_closed or uploads.is_paused or is_removed:
            return
        if not uploads.problem:
            uploads.note_problem(
                f"The process that reads the files ended with status {status}; "
                "the console's log says more."
            )
        _log.warning("the uploads of %s were not read: %s", name, uploads.problem)

    def _environment(self) -> dict[str, str]:
        """The worker reads the settings as this process did; home and database as they are here."""
        settings = self._context.settings
        own = {"WHET_HOME": str(settings.home), "WHET_DATABASE_URL": settings.resolved_database_url}
        return {**os.environ, **own}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
