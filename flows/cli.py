"""The command line `robust`: reads arguments, calls a flow, turns outcomes into exit codes.

Heavy imports happen inside the commands, so that `robust --help` answers at once.
Exit codes: 0 done; 1 the run failed or a gate was not met; 2 bad input; 3 contradiction; 130 interrupted, resumable.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from flows.arguments import NORMS, SPLITS
from flows.runners import RUNNERS

app = typer.Typer(
    name="robust",
    help="How robust is this image classifier, against what, at what cost, and can the number be trusted?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

SIZES = ("smoke", "cpu", "full")


def _kinds(incomplete: str) -> list[str]:
    """What the shell offers for a kind."""
    from robust.registry import KINDS

    return [kind for kind in KINDS if kind.startswith(incomplete)]


def _names(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """What the shell offers for a name: the methods of the kind that is typed already, each with its line."""
    from robust.registry import KINDS, entries

    kind = context.params.get("kind")
    found = entries(kind) if kind in KINDS else ()
    return [(entry.name, entry.summary) for entry in found if entry.name.startswith(incomplete)]


def _registered(kind: str) -> Callable[[str], list[str]]:
    """What the shell offers for an option that takes methods of one kind."""

    def names(incomplete: str) -> list[str]:
        from robust.registry import entries

        return [entry.name for entry in entries(kind) if entry.name.startswith(incomplete)]

    return names


_DATASETS = _registered("dataset")
Home = Annotated[Path | None, typer.Option(help="where runs keep everything (ROBUST_HOME, default ./.robust)")]
SizeOption = Annotated[
    str, typer.Option(help="which preset of the study: smoke, cpu or full", autocompletion=lambda: SIZES)
]
Changes = Annotated[list[str] | None, typer.Option("--set", help="a.b=c, replaces one value of the study; repeatable")]
Json = Annotated[bool, typer.Option("--json", help="machine-readable lines on standard output")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress, only the result")]
Runner = Annotated[str, typer.Option(help="threads, processes or dask", autocompletion=lambda: RUNNERS)]
Seeds = Annotated[str | None, typer.Option(help="comma-separated seeds, replaces the study's")]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"robust-flows {version('robust-flows')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks and debug messages")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="show the version and exit", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options that go before the command."""
    if debug:
        os.environ["ROBUST_DEBUG"] = "1"
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s")


@app.command()
def run(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY...", help="a study file, or a folder of them")],
    size: SizeOption = "cpu",
    change: Changes = None,
    home: Home = None,
    runner: Runner = "threads",
    seeds: Seeds = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run studies: training, attacks, report; cached where it can be."""
    from flows.run import run_studies

    report = run_studies(studies, size, change or [], _home(home), runner, _seeds(seeds), quiet, as_json)
    typer.echo(str(report))


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="module:function, NAME@weights.pt, a file, or models:/name@alias")],
    dataset: Annotated[
        str, typer.Option(help="a data set's name, or a folder of images", autocompletion=_registered("dataset"))
    ],
    split: Annotated[
        str, typer.Option(help="test, train, select or calibrate", autocompletion=lambda: SPLITS)
    ] = "test",
    samples: Annotated[int | None, typer.Option(help="how many; default all")] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(help="name or {name: pgd, steps: 40}; repeatable", autocompletion=_registered("attack")),
    ] = None,
    norm: Annotated[str | None, typer.Option(help="linf, l2 or l1", autocompletion=lambda: NORMS)] = None,
    eps: Annotated[str | None, typer.Option(help="radius in units of the [0,1] image, such as 8/255")] = None,
    seed: Annotated[int, typer.Option(help="keys the attacks' draws")] = 0,
    gate: Annotated[list[str] | None, typer.Option(help="'linf 8/255 >= 45%': exit code 1 if not; repeatable")] = None,
    until: Annotated[str | None, typer.Option(help="stop when every 95 % interval is this narrow: ±1%")] = None,
    search_dtype: Annotated[str, typer.Option(help="fp32, or bf16 to search in low precision")] = "fp32",
    certify_first: Annotated[bool, typer.Option(help="spend no attack on samples that a bound proves")] = True,
    trust: Annotated[list[str] | None, typer.Option(metavar="FILE", help="its pickle may run code")] = None,
    mean: Annotated[str | None, typer.Option(help="normalisation before the network, with commas")] = None,
    std: Annotated[str | None, typer.Option(help="normalisation before the network, with commas")] = None,
    classes: Annotated[str | None, typer.Option(help="the data's classes in the order of the outputs")] = None,
    probe: Annotated[bool, typer.Option(help="find out what the network expects")] = True,
    name: Annotated[str, typer.Option(help="of the report; a later one of that name takes its place")] = "",
    home: Home = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Evaluate any model: probe, attacks, validity checks, one report."""
    from flows.evaluation import evaluate_model, half_width, numbers

    settings = {
        "model": model, "folder": os.getcwd(), "trust": trust or [], "dataset": dataset, "split": split,
        "samples": samples, "attacks": attack or [], "norm": norm, "eps": eps, "seed": seed, "gates": gate or [],
        "until": half_width(until), "search_dtype": search_dtype, "certify_first": certify_first, "probe": probe,
        "name": name,
        "mean": numbers("--mean", mean), "std": numbers("--std", std), "classes": classes.split(",") if classes else [],
    }  # fmt: skip
    if not evaluate_model(settings, _home(home), quiet, as_json):
        raise typer.Exit(1)


@app.command()
def plan(
    study: Annotated[str, typer.Argument(help="a study file")],
    size: SizeOption = "cpu",
    change: Changes = None,
    home: Home = None,
    seeds: Seeds = None,
    as_json: Json = False,
) -> None:
    """Say which steps are in the cache, and why the others are not."""
    from flows.plan import plan_study, plan_table

    steps = plan_study(study, size, change or [], _home(home), _seeds(seeds))
    typer.echo(json.dumps(steps) if as_json else plan_table(steps))


@app.command(name="list")
def list_methods(
    kind: Annotated[
        str | None, typer.Argument(help="one kind of method: attack, objective, model, ...", autocompletion=_kinds)
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List the methods by kind and family, with their papers."""
    from flows.catalogue import catalogue, catalogue_table, listed

    typer.echo(json.dumps(catalogue(_home(home), kind)) if as_json else catalogue_table(listed(kind)))


@app.command()
def show(
    kind: Annotated[str, typer.Argument(help="the kind of method", autocompletion=_kinds)],
    name: Annotated[
        str | None, typer.Argument(help="its name; alone, if one kind has it", autocompletion=_names)
    ] = None,
) -> None:
    """Show a method: formula, paper, fields, cost in passes."""
    from flows.catalogue import describe, kind_of

    typer.echo(describe(kind, name) if name else describe(kind_of(kind), kind))


@app.command()
def report(
    study: Annotated[str, typer.Argument(metavar="STUDY|RUN", help="a study file, its name, or a report folder")],
    size: SizeOption = "cpu",
    home: Home = None,
) -> None:
    """Draw a report again from what the home holds, without a model."""
    from flows.report import rebuild

    typer.echo(str(rebuild(study, size, _home(home))))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="a study's name, or a report.json")],
    second: Annotated[str, typer.Argument(metavar="B", help="the other")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Compare two reports: what changed, and which samples flipped."""
    from flows.operations import compare_two

    typer.echo(str(compare_two(first, second, _home(home), as_json)))


@app.command()
def replay(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a study's name, a report.json, or an MLflow run id")],
    home: Home = None,
    into: Annotated[Path | None, typer.Option(help="an empty folder to replay in; default a temporary one")] = None,
) -> None:
    """Run a report again in a clean home; say where it first differs."""
    from flows.operations import replay_report

    answer = replay_report(run, _home(home), into)
    typer.echo(answer)
    if answer != "identical":
        raise typer.Exit(1)


@app.command()
def watch(
    name: Annotated[str, typer.Argument(help="a registered model, for example robust-digits-mlp")],
    alpha: Annotated[float, typer.Option(help="chance of a false alarm in a look")] = 0.01,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Judge a champion anew: exit code 1 if it fell beyond chance."""
    from flows.operations import watch_model

    typer.echo(str(watch_model(name, alpha, _home(home), as_json)))


@app.command()
def promote(
    run: Annotated[str, typer.Argument(metavar="RUN", help="STUDY, STUDY/NETWORK, or an MLflow run or model id")],
    gate: Annotated[list[str] | None, typer.Option("--gate", "--set", help="name=value, or none; repeatable")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make a network the champion if its report passes the gates."""
    from flows.operations import promote_run

    typer.echo(str(promote_run(run, gate or [], _home(home), as_json)))


@app.command()
def doctor(home: Home = None, as_json: Json = False) -> None:
    """Check versions, devices, data, disk and servers."""
    from flows.doctor import checks, checks_table

    found = checks(_home(home))
    typer.echo(json.dumps(found) if as_json else checks_table(found))
    if any(check["state"] == "wrong" for check in found):
        raise typer.Exit(1)


@app.command()
def serve(
    home: Home = None,
    prefect_port: Annotated[int, typer.Option(help="0 takes 4200, or another where that is taken")] = 0,
    mlflow_port: Annotated[int, typer.Option(help="0 takes 5000, or another where that is taken")] = 0,
) -> None:
    """Run the Prefect and MLflow servers and a worker, on loopback."""
    from flows.serve import serve_forever

    serve_forever(_home(home), prefect_port, mlflow_port)


@app.command()
def deploy(
    file: Annotated[Path, typer.Option(help="the deployments to put up")] = Path("deployments/prefect.yaml"),
    home: Home = None,
) -> None:
    """Put up the scheduled deployments at the running Prefect server."""
    from flows.serve import deploy_all

    typer.echo(deploy_all(_home(home), file))


def _home(home: Path | None) -> Path:
    return Path(home or os.environ.get("ROBUST_HOME") or ".robust").absolute()


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--seeds {text}: expected whole numbers with commas, for example 0,1,2") from None


def main() -> None:
    """The console script: run a command, and end with the exit code its outcome has."""
    try:
        status = app(prog_name="robust", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except Exception as error:  # the last resort of a command line: a message and a code instead of a traceback
        if os.environ.get("ROBUST_DEBUG"):
            raise
        sys.exit(_explain(error))
    if status == 130:  # which typer, too, makes of Ctrl-C
        from tasks.stopping import leave

        leave()
    sys.exit(status if isinstance(status, int) else 0)


def _explain(error: Exception) -> int:
    """Print what went wrong and return the exit code."""
    from flows.outcomes import exit_code

    if type(error).__name__ == "NoArgsIsHelpError":  # `robust` alone: the help is the answer
        typer.echo(str(error), err=True)
        return 2
    if hasattr(error, "format_message"):  # click's own complaints about arguments
        path = getattr(getattr(error, "ctx", None), "command_path", "robust")
        typer.echo(f"error: {error.format_message()}\n{path} --help tells what it takes", err=True)
        return 2
    typer.echo(f"error: {error}", err=True)
    return exit_code(error)
