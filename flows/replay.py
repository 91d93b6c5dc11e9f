"""The flow `replay`: a published report run again from its own settings, in a home that knows nothing of it."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.study import run_study
from robust.study_file import validate
from tasks.home import Home


@flow(name="replay")
def replay(settings: dict[str, Any], source: str) -> str:
    """Run the study that `settings` spell out; returns the path of its report.

    Args:
        settings: `settings` of a report.json.
        source: how the study file was called, which the report's commands repeat.
    """
    home = Home.current().create()
    return str(run_study(validate(settings, source), source, home))
