"""The flow `watch`: judge registered champions anew, and fail where one has become worse by more than chance."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from robust.drops import Drop
from tasks.announce import announce, publish
from tasks.evaluate import evaluate
from tasks.home import Home
from tasks.prepare import prepare, prepare_work
from tasks.registered import Registered, Registry
from tasks.reported import UnknownName
from tasks.store import Store
from tasks.watch import compare, look_rows, look_works, next_look, report_path, write_look


class AccuracyDropped(RuntimeError):  # noqa: N818 - reads as the message it is
    """A champion's accuracy fell by more than chance explains."""


@flow(name="watch", validate_parameters=True)
def watch(
    names: list[str] | None = None, alpha: Annotated[float, Field(gt=0, lt=1, description="false alarms")] = 0.01
) -> list[str]:
    """Look at the champions of these registered models, or of all; returns the paths of the findings.

    Raises:
        AccuracyDropped: naming the models and evaluations that fell.
    """
    home = Home.current().create()
    registry = Registry(home)
    watched = [champion_of(registry, name) for name in names] if names else champions(registry)
    fallen = [alarm for champion in watched for alarm in look_at(champion, alpha, registry, home)]
    if fallen:
        raise AccuracyDropped("; ".join(fallen))
    return [str(report_path(home, champion.name)) for champion in watched]


def look_at(champion: Registered, alpha: float, registry: Registry, home: Home) -> list[str]:
    """One look inside the running flow; returns a sentence for each evaluation that fell."""
    look = next_look(champion, home)
    data = prepare(prepare_work(look.study.dataset, home))
    futures = {place: evaluate.submit(work) for place, work in look_works(look, data, registry, home).items()}
    rows = look_rows(look, {place: future.result() for place, future in futures.items()}, Store.of(home))
    found = compare(look, rows, data, alpha)
    content = write_look(look, rows, found, data, home)
    publish(f"watch-{champion.name}", markdown(content))
    alarms = [sentence(champion, drop) for drop in found if drop.raised]
    if alarms:
        announce("accuracy-dropped", champion.name, {"version": champion.version, "alarms": alarms})
    return alarms


def champion_of(registry: Registry, name: str) -> Registered:
    """The champion of a registered model.

    Raises:
        UnknownName: if there is no such model, or it has no champion.
    """
    aliases = registry.aliases(name)
    if "champion" not in aliases:
        raise UnknownName(f"{name} has no champion; robust promote RUN makes one")
    return registry.version(name, aliases["champion"])


def champions(registry: Registry) -> list[Registered]:
    """Every champion there is."""
    found = {name: registry.aliases(name) for name in registry.names()}
    return [registry.version(name, aliases["champion"]) for name, aliases in found.items() if "champion" in aliases]


def sentence(champion: Registered, drop: Drop) -> str:
    """What fell, from where to where."""
    return (
        f"{champion.name} version {champion.version}: accuracy under {drop.label} fell from "
        f"{100 * drop.accuracy[0]:.1f} % to {100 * drop.accuracy[1]:.1f} % (p {drop.p_holm:.2g})"
    )


def markdown(content: dict[str, Any]) -> str:
    """The findings as Prefect's page shows them."""
    head = f"**{content['model']}** version {content['version']}, look {content['look']}: "
    head += "a drop larger than chance" if content["raised"] else "no drop larger than chance"
    rows = [
        f"| {row['label']} | {row['before']:.3f} | {row['now']:.3f} | {row['p_holm']:.3g} | {row['raised']} |"
        for row in content["evaluations"]
    ]
    return "\n".join([head, "", "| evaluation | then | now | p (Holm) | raised |", "|---|---|---|---|---|", *rows])
