"""The former place of `whet.scheduler`, for service files that still start it from here."""

from whet.scheduler import main, processes

__all__ = ["main", "processes"]

if __name__ == "__main__":
    main()
