"""`python -m benchmarks [gateway] [drift]`: those benchmarks, or all that need no GPU, one after
the other with their defaults.
"""

from __future__ import annotations

import sys

from benchmarks.drift.__main__ import main as drift
from benchmarks.gateway.__main__ import main as gateway

_ALL = {"gateway": gateway, "drift": drift}


def main(given: list[str]) -> int:
    """The worst exit code; 2 for a name that is none."""
    unknown = [name for name in given if name not in _ALL]
    if unknown:
        sys.stderr.write(
            f"There is no benchmark {', '.join(unknown)}; expected {' or '.join(_ALL)}.\n"
        )
        return 2
    return max(_ALL[name]([]) for name in given or _ALL)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
