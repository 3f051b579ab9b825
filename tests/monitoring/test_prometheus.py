"""A real Prometheus scrapes the gateway and the scheduler by the files in `deploy/`, its rules
fire, and a real Alertmanager passes an incident and its end on.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import insert, update

from monitoring.run import run_drift
from tests.monitoring.build import HOUR, insert_records, promote, records
from tests.monitoring.receiver import Receiver
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import writing
from whet.settings import load_settings
from whet.tables import alerts

pytestmark = pytest.mark.seconds

ROOT = Path(__file__).parents[2]
_DEADLINE_S = 90  # a loaded machine takes half a minute to start a process that imports scipy


def program(name: str) -> str:
    found = shutil.which(name) or (
        (ROOT / ".tools" / name).is_file() and str(ROOT / ".tools" / name)
    )
    if not found:
        pytest.fail(f"{name} is not on this machine. Run `make setup-test`.", pytrace=False)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def soon(what: str, reached: Callable[[], Any]) -> Any:
    """What `reached` returns once it is true."""
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        try:
            found = reached()
        except httpx.HTTPError as error:
            found, what_then = None, error
        else:
            what_then = found
        if found:
            return found
        assert time.monotonic() < deadline, (
            f"{what}: not within {_DEADLINE_S} s; last seen: {what_then}"
        )
        time.sleep(0.2)


class Pager(Receiver):
    """Where Alertmanager sends what it passes on."""

    def heard(self, status: str, **labels: str) -> bool:
        """Whether an alert came with this status and these labels."""
        said = [alert for _, body in self.got for alert in body["alerts"]]
        return any(
            alert["status"] == status and labels.items() <= alert["labels"].items()
            for alert in said
        )


class Watched:
    """A home with its gateway and scheduler, a Prometheus and an Alertmanager, all on loopback
    ports of their own.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.gateway, self.loop, self.prometheus, self.alertmanager = (
            free_port() for _ in range(4)
        )
        self.pager = Pager()
        stack.callback(self.pager.close)
        self.context: Context = open_context(load_settings(home=folder / "home"))
        stack.callback(self.context.close)

    def start(self, *command: str, **environment: str) -> None:
        log = self.stack.enter_context(
            (self.folder / f"{len(list(self.folder.iterdir()))}.log").open("wb")
        )
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=log, stderr=log, cwd=ROOT
        )
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)

    def start_product(self) -> None:
        settings = {
            "WHET_HOME": str(self.context.settings.home),
            "WHET_GATEWAY_PORT": str(self.gateway),
            "WHET_METRICS_PORT": str(self.loop),
            "WHET_ALERTMANAGER_URL": f"http://127.0.0.1:{self.alertmanager}",
            "WHET_ENGINE_URLS": f"http://127.0.0.1:{free_port()}",  # nobody is there
        }
        self.start(sys.executable, "-m", "serving.gateway", **settings)
        self.start(sys.executable, "-m", "whet.scheduler", **settings)

    def start_prometheus(self) -> None:
        """By the configuration in `deploy/`, with other ports and a second's patience."""
        text = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
        for shipped, here in (
            ("8000", self.gateway),
            ("8082", self.loop),
            ("9093", self.alertmanager),
        ):
            assert f"127.0.0.1:{shipped}" in text
            text = text.replace(f"127.0.0.1:{shipped}", f"127.0.0.1:{here}")
        config = yaml.safe_load(text)
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        for job in config["scrape_configs"]:
            job.pop("scrape_interval", None)
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        shutil.copy(ROOT / "deploy/prometheus/rules.yml", self.folder / "rules.yml")
        self.start(
            program("prometheus"),
            f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{self.prometheus}",
        )

    def start_alertmanager(self) -> None:
        hook = {
            "name": "pager",
            "webhook_configs": [
                {"url": f"http://127.0.0.1:{self.pager.port}/", "send_resolved": True}
            ],
        }
        route = {
            "receiver": "pager",
            "group_by": ["..."],
            "group_wait": "1s",
            "group_interval": "1s",
            "repeat_interval": "1h",
        }
        (self.folder / "alertmanager.yml").write_text(
            yaml.safe_dump({"route": route, "receivers": [hook]})
        )
        self.start(
            program("prometheus-alertmanager"),
            f"--config.file={self.folder}/alertmanager.yml",
            f"--storage.path={self.folder}/am",
            f"--web.listen-address=127.0.0.1:{self.alertmanager}",
            "--cluster.listen-address=",
        )

    def query(self, expression: str) -> dict[str, float]:
        """Labels as text → value."""
        found = (
            httpx.get(
                f"http://127.0.0.1:{self.prometheus}/api/v1/query", params={"query": expression}
            )
            .raise_for_status()
            .json()
        )
        return {
            json.dumps(one["metric"], sort_keys=True): float(one["value"][1])
            for one in found["data"]["result"]
        }


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with ExitStack() as stack:
        yield Watched(tmp_path, stack)


def test_prometheus_accepts_the_rules() -> None:
    done = subprocess.run(
        [program("promtool"), "check", "rules", str(ROOT / "deploy/prometheus/rules.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr


def test_an_incident_and_its_end_reach_people_through_prometheus_and_alertmanager(
    watched: Watched,
) -> None:
    context, now = watched.context, now_ms()
    promote(context, at=now - 101 * HOUR)
    insert_records(
        context,
        records(240, 1, start_at=now - 100 * HOUR)
        + records(240, 2, start_at=now - HOUR, new_words=0.6),
    )
    assert run_drift(context, "support", now).verdict == "drift"
    watched.start_alertmanager()
    watched.start_product()
    watched.start_prometheus()

    soon("both jobs are scraped", lambda: sum(watched.query('up{job=~"whet-.*"}').values()) == 2)
    soon(
        "the drift of the alias is seen",
        lambda: list(watched.query('whet_drift_detected{alias="support"}').values()) == [1.0],
    )
    assert (
        watched.query("whet_monitoring_up")
        and watched.query("whet_gateway_answers_total") is not None
    )
    soon(
        "the scheduler tells Alertmanager of the incident",
        lambda: watched.pager.heard(
            "firing", alertname="WhetDrift", alias="support", kind="questions"
        ),
    )

    with writing(context.database) as connection:
        row = {
            "id": "alr_bad",
            "dedup_key": "k",
            "alias": "support",
            "kind": "errors",
            "severity": "bad",
            "title": "support: more answers are wrong. 9 %.",
        }
        connection.execute(
            insert(alerts).values(
                **row,
                detail={},
                state="open",
                opened_at=now,
                changed_at=now,
                changed_by=None,
                open_marker="k",
            )
        )
    soon(
        "a rule of Prometheus fires",
        lambda: watched.pager.heard("firing", alertname="WhetQualityFell", severity="ticket"),
    )
    soon(
        "the graver alert is a page",
        lambda: watched.pager.heard(
            "firing", alertname="WhetDrift", alert="alr_bad", severity="page"
        ),
    )

    with writing(context.database) as connection:
        connection.execute(
            update(alerts).values(
                state="resolved", open_marker=None, changed_at=now_ms(), changed_by="ada"
            )
        )
    soon(
        "the rule's alert is over",
        lambda: watched.pager.heard("resolved", alertname="WhetQualityFell"),
    )
    soon(
        "the incident is over",
        lambda: watched.pager.heard("resolved", alertname="WhetDrift", alert="alr_bad"),
    )
    soon(
        "and so is the first one",
        lambda: watched.pager.heard("resolved", alertname="WhetDrift", kind="questions"),
    )


_SEALED = """
import socket, sys
from pathlib import Path

tried = []


def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        address = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[:2]
        host = address[0] if isinstance(address, tuple) else ""  # a path: a socket of this machine
        if host and not str(host).startswith(("127.", "::1", "localhost")):
            tried.append(f"{event} {address}")
            raise OSError("sealed")


sys.addaudithook(watch)
from monitoring.jobs import jobs
from whet.context import open_context
from whet.settings import load_settings

context = open_context(load_settings())
for job in jobs(context):
    print(job.name, job.run(int(sys.argv[1])), flush=True)
print("tried:", tried)
if sys.argv[2:] == ["leak"]:
    try:
        socket.create_connection(("203.0.113.1", 80), timeout=1)
    except OSError:
        pass
sys.exit(3 if tried else 0)
"""


@pytest.mark.parametrize("planted", [False, True])
def test_nothing_of_monitoring_tries_to_leave_the_machine(tmp_path: Path, planted: bool) -> None:
    """Every job in a process that may not open a socket to anywhere else; with a planted leak the
    same check has to notice.
    """
    context = open_context(load_settings(home=tmp_path / "home"))
    now = now_ms()
    promote(context, at=now - 101 * HOUR)
    insert_records(
        context,
        records(240, 1, start_at=now - 100 * HOUR)
        + records(240, 2, start_at=now - HOUR, new_words=0.6),
    )
    context.close()
    (tmp_path / "sealed.py").write_text(_SEALED)
    environment = {
        **os.environ,
        "WHET_HOME": str(tmp_path / "home"),
        "WHET_METRICS_PORT": str(free_port()),
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("DO_NOT_TRACK", None)  # what keeps telemetry quiet has to be in the product
    command = [
        sys.executable,
        str(tmp_path / "sealed.py"),
        str(now),
        *(["leak"] if planted else []),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=200
    )
    assert "drift support: drift" in done.stdout, done.stdout + done.stderr
    assert done.returncode == (3 if planted else 0), done.stdout + done.stderr
