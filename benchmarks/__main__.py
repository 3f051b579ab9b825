"""`python -m benchmarks`: every benchmark that needs no GPU, one after the other."""

from __future__ import annotations

from benchmarks.gateway.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main())
