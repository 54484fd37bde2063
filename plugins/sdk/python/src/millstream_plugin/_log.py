"""Lines for the operator's log."""

from enum import IntEnum

from ._host import host


class Level(IntEnum):
    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4


def log(level: Level, message: str) -> None:
    """Writes a line to the operator's log, where it is marked with the step."""
    host().log(int(level), str(message).encode(errors="replace").decode())
