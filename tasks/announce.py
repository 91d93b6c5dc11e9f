"""Announce: tell Prefect what a flow found, as an event that automations act on and a page in its interface."""

from __future__ import annotations

import re
from typing import Any


def announce(what: str, name: str, payload: dict[str, Any]) -> None:
    """Emit the event `robust.<what>` about the registered model `name`."""
    from prefect.events import emit_event

    resource = {"prefect.resource.id": f"robust.model.{name}", "prefect.resource.name": name}
    emit_event(event=f"robust.{what}", resource=resource, payload=payload)


def publish(key: str, markdown: str) -> None:
    """A markdown artifact of the running flow; its key keeps letters, digits and dashes."""
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(markdown, key=re.sub(r"[^a-z0-9-]+", "-", key.lower()).strip("-"))
