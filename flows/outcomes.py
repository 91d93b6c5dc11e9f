"""Which exit code an outcome has."""

from __future__ import annotations

INPUT = (
    "StudyError", "DatasetError", "UnknownMethod", "HomeError", "InputError", "DeviceError", "SettingError",
    "ForeignError",
)  # fmt: skip
ASKED = ("UnknownName", "NotComparable", "GateError")  # of promote, watch, replay and compare


class InputError(ValueError):
    """What was asked for cannot be; the message says what can."""


def exit_code(error: BaseException) -> int:
    """2 for bad input, 3 for a contradiction, 130 for an interruption, 1 for everything else.

    Judged by the names in the error's class hierarchy, so that asking imports nothing heavy.
    """
    names = {cls.__name__ for cls in type(error).__mro__}
    if "Contradiction" in names:
        return 3
    if names & {*INPUT, *ASKED}:
        return 2
    if names & {"Interrupted", "KeyboardInterrupt"}:
        return 130
    return 1
