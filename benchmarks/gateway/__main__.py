"""`python -m benchmarks.gateway`: measure, write the results, update the table in README.md."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.document import put_between_markers
from benchmarks.gateway.figures import ARMS, BEGIN, CELLS, END, table
from benchmarks.gateway.run import Plan, commit, measure
from whet.errors import WhetError

_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parents[1]


def _arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="rounds; each runs every arm under every load once (default 3)",
    )
    parser.add_argument(
        "--seconds", type=float, default=5, help="seconds of load per run (default 5)"
    )
    parser.add_argument(
        "--arms",
        default=",".join(ARMS),
        help=f"comma-separated, of: {', '.join(ARMS)} (default all)",
    )
    parser.add_argument(
        "--loads",
        default=",".join(CELLS),
        help=f"comma-separated, of: {', '.join(CELLS)} (default all)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=os.environ.get("WHET_BENCH_CACHE", _REPOSITORY / ".bench"),
        help="folder for the peers' environments (default .bench, or WHET_BENCH_CACHE)",
    )
    parser.add_argument(
        "--gateway-core", type=int, default=0, help="core of the gateway (default 0)"
    )
    parser.add_argument(
        "--load-core",
        type=int,
        default=1,
        help="core of the upstream and the load generator (default 1)",
    )
    parser.add_argument(
        "--port", type=int, default=18900, help="first of five loopback ports (default 18900)"
    )
    parser.add_argument(
        "--no-record",
        action="store_true",
        help="print the table; leave results/ and README.md alone",
    )
    options = parser.parse_args(given)
    for name, known in (("arms", ARMS), ("loads", CELLS)):
        chosen = [part for part in getattr(options, name).split(",") if part]
        if not chosen or set(chosen) - set(known):
            parser.error(
                f"--{name}: {', '.join(sorted(set(chosen) - set(known))) or 'nothing'} is not among"
                f" {', '.join(known)}"
            )
        setattr(options, name, chosen)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be positive")
    return options


def main(given: list[str] | None = None) -> int:
    """Exit code 0: done; 1: done, and something failed that is in the results; 2: could not run."""
    arguments = sys.argv[1:] if given is None else given
    options = _arguments(arguments)
    # Ended from outside, it still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scratch = Path(tempfile.mkdtemp(prefix="whet-bench-"))
    cells = [CELLS[name] for name in options.loads]
    plan = Plan(
        options.arms, cells, options.rounds, options.seconds, options.gateway_core, options.load_core, options.port, scratch, options.cache.absolute()
    )  # fmt: skip
    identity = {
        "command": " ".join(["python -m benchmarks.gateway", *arguments]),
        "commit": commit(_REPOSITORY),
    }
    try:
        result = identity | measure(plan, lambda line: print(line, flush=True))
    except WhetError as error:
        print(f"error: {error} Logs are in {scratch}.", file=sys.stderr)
        return 2
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(scratch, ignore_errors=True)
    text = table(result)
    print(text)
    if not options.no_record:
        _record(result, text)
    return 1 if result["failures"] else 0


def _record(result: dict[str, object], text: str) -> None:
    path = _HERE / "results" / f"{datetime.now(UTC):%Y-%m-%d}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    readme = _HERE / "README.md"
    readme.write_text(put_between_markers(readme.read_text(), text, BEGIN, END))
    print(f"\nwritten: {path.relative_to(_REPOSITORY)}, {readme.relative_to(_REPOSITORY)}")


if __name__ == "__main__":
    raise SystemExit(main())
