"""The flow `promote`: a network becomes the champion if its report passes the gates; the aliases move together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import flow

from robust.gates import Gates, Ruling, Standing, judge
from tasks.announce import announce, publish
from tasks.home import Home
from tasks.promote import move_aliases, successors
from tasks.registered import Registered, Registry
from tasks.store import moved_into


class GatesNotMet(RuntimeError):  # noqa: N818 - reads as the message it is
    """The candidate stays what it was."""


@flow(name="promote", validate_parameters=True)
def promote(run: str, gates: Gates | None = None) -> str:
    """Promote the network that `run` means; returns the path of the record.

    Args:
        run: an MLflow run or model id, STUDY/NETWORK, or STUDY for its most robust network.
        gates: what it must reach.

    Raises:
        GatesNotMet: naming each gate that is not met; nothing was moved.
    """
    home, gates = Home.current().create(), gates or Gates()
    registry = Registry(home)
    candidate = registry.candidate(run)
    aliases = registry.aliases(candidate.name)
    rulings = judge(gates, standing(candidate), reigning(registry, candidate.name, aliases, gates))
    missed = [ruling for ruling in rulings if not ruling.met]
    after = successors(aliases, candidate.version)
    before = None if missed else move_aliases(registry, candidate.name, after, home)
    path = write_record(candidate, gates, rulings, before, after, home)
    publish(f"promote-{candidate.name}", f"```\n{rulings_table(json.loads(path.read_text()))}\n```")
    if missed:
        raise GatesNotMet(f"{candidate.network} is not promoted: " + "; ".join(_missed(ruling) for ruling in missed))
    announce("promoted", candidate.name, {"version": candidate.version, "network": candidate.network})
    return str(path)


def standing(found: Registered) -> Standing:
    """What the report behind a version says of it."""
    return Standing.of(found.reported.report, found.network)


def reigning(registry: Registry, name: str, aliases: dict[str, str], gates: Gates) -> Standing | None:
    """The standing of the champion; None if there is none, or no gate asks for it."""
    asked = gates.gain is not None or gates.clean_drop is not None
    return standing(registry.version(name, aliases["champion"])) if asked and "champion" in aliases else None


def write_record(
    candidate: Registered,
    gates: Gates,
    rulings: list[Ruling],
    before: dict[str, str | None] | None,
    after: dict[str, str | None],
    home: Home,
) -> Path:
    """promote.json: who was judged by which gates, and what moved."""
    path = home.reports / f"promote-{candidate.name}" / "promote.json"
    content = {
        "schema": 1, "model": candidate.name, "version": candidate.version, "network": candidate.network,
        "study": candidate.reported.name, "sha256": candidate.sha256, "gates": gates.model_dump(),
        "rulings": [ruling.__dict__ for ruling in rulings], "promoted": before is not None,
        "before": before, "after": None if before is None else after,
    }  # fmt: skip
    with moved_into(path) as stream:
        stream.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    return path


def rulings_table(content: dict[str, Any]) -> str:
    """The gates for a terminal of 80 columns."""
    lines = [f"{content['network']} of {content['study']}: {content['model']} version {content['version']}"]
    for row in content["rulings"]:
        lines.append(f"{'met ' if row['met'] else 'MISS'} {row['gate']:<11} {row['asks']:>13}  {row['found'][:46]}")
    if content["promoted"]:
        moved = [f"{alias} {content['before'][alias] or 'none'} -> {version or 'none'}"
                 for alias, version in content["after"].items()]  # fmt: skip
        lines.append("; ".join(moved))
    return "\n".join(lines)


def _missed(ruling: Ruling) -> str:
    return f"{ruling.gate} {ruling.asks}, found {ruling.found}" + (f" ({ruling.why})" if ruling.why else "")
