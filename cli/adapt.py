"""`normbank adapt`: teach a domain from its cases, and watch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from cli.client import DEFAULT_URL, ApiError, Client, Data, Key, Url, connect
from cli.domains import parse_json
from cli.output.tables import dice_table, probe_table
from cli.output.terminal import console, fail
from normbank.entities import JobState


def adapt(
    domain_id: Annotated[str, typer.Argument(metavar="ID")],
    follow: Annotated[bool, typer.Option("--follow", help="Watch until it has finished.")] = False,
    recipe: Annotated[str, typer.Option(help="Recipe as JSON, for example '{\"seed\": 1}'.")] = "",
    seed: Annotated[int | None, typer.Option(help="The recipe's seed.")] = None,
    steps: Annotated[int | None, typer.Option(help="The recipe's steps at most.")] = None,
    url: Url = DEFAULT_URL,
    key: Key = "",
    data: Data = None,
) -> None:
    """Adapt a domain on its labelled cases."""
    settings = parse_json(recipe, "the recipe") if recipe else {}
    chosen = {"seed": seed, "steps": steps}
    settings |= {name: value for name, value in chosen.items() if value is not None}
    with connect(url, key, data) as client:
        try:
            job = submit(client, domain_id, settings)
            if not follow:
                typer.echo(job["id"])
                return
            finished = watch(client, job["id"])
            if finished["state"] != JobState.SUCCEEDED:
                fail(why_not(finished))
            report(client, domain_id, finished)
        except ApiError as error:
            fail(str(error))


def submit(
    client: Client, domain_id: str, recipe: Mapping[str, Any], *, once: str = ""
) -> Mapping[str, Any]:
    """Queue an adaptation; the job.

    Parameters
    ----------
    once : a key; where a request with it has been made already, its job is the answer
    """
    headers = {"Idempotency-Key": once} if once else {}
    path = f"/domains/{domain_id}/adapt"
    return dict(client.call("POST", path, json=dict(recipe), headers=headers).json())


def watch(client: Client, job_id: str) -> Mapping[str, Any]:
    """Follow a job with a live bar; the job as it ended.

    Ctrl-C stops watching; the job goes on.
    """
    job: Mapping[str, Any] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console()) as progress:
        bar = progress.add_task("queued", total=1.0, left="")
        for job in client.follow(job_id):
            eta_s = job.get("eta_s")
            left = f"{eta_s:.0f} s left" if eta_s and job["state"] == JobState.RUNNING else ""
            doing = job["step"] if job["state"] == JobState.RUNNING else ""
            progress.update(
                bar, completed=job["progress"], description=doing or job["state"], left=left
            )
    return job


def report(client: Client, domain_id: str, job: Mapping[str, Any]) -> None:
    """What an adaptation did: the probe's candidates, Dice before and after."""
    metrics = client.get(f"/domains/{domain_id}/metrics")
    made = scored_version(metrics, job["result"] or {})
    screen = console()
    if made is not None:
        screen.print(probe_table(made))
        screen.print(dice_table(made))
    screen.print(f"{domain_id} serves version {metrics['active_version']}")


def scored_version(
    metrics: Mapping[str, Any], result: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """The version a job made, in a domain's metrics; None if it made none."""
    for version in metrics["versions"]:
        if version["number"] == result.get("version"):
            return dict(version)
    return None


def why_not(job: Mapping[str, Any]) -> str:
    """How an adaptation that did not succeed ended."""
    error = job.get("error") or {}
    reason = f": {error['detail']} ({error['code']})" if error else ""
    return f"the adaptation {job['state']}{reason}"
