"""An adaptation on the screen: its progress and its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from cli.client import Client
from cli.output.tables import dice_table, probe_table
from cli.output.terminal import console
from normbank.entities import JobState


def follow_job(client: Client, job_id: str) -> Mapping[str, Any]:
    """Follow a job with a progress bar; returns the job as it ended.

    Ctrl-C ends the bar; the job goes on.
    """
    job: Mapping[str, Any] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[remaining]}"),
    )
    with Progress(*columns, console=console()) as progress:
        bar = progress.add_task("queued", total=1.0, remaining="")
        for job in client.follow(job_id):
            eta_s = job.get("eta_s")
            remaining = f"{eta_s:.0f} s left" if eta_s and job["state"] == JobState.RUNNING else ""
            step = job["step"] if job["state"] == JobState.RUNNING else ""
            progress.update(
                bar,
                completed=job["progress"],
                description=step or job["state"],
                remaining=remaining,
            )
    return job


def print_adaptation(client: Client, domain_id: str, job: Mapping[str, Any]) -> None:
    """Print the probe's candidates, and Dice before and after an adaptation."""
    metrics = client.get(f"/domains/{domain_id}/metrics")
    version = scored_version(metrics, job["result"] or {})
    screen = console()
    if version is not None:
        screen.print(probe_table(version))
        screen.print(dice_table(version))
    for objection in (job["result"] or {}).get("objections", ()):
        screen.print(f"kept as a candidate: {objection}")
    screen.print(f"{domain_id} serves version {metrics['active_version']}")


def scored_version(
    metrics: Mapping[str, Any], result: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """Find the version that a job published in a domain's metrics; None without one."""
    for version in metrics["versions"]:
        if version["number"] == result.get("version"):
            return dict(version)
    return None


def failure_reason(job: Mapping[str, Any]) -> str:
    """Describe how an adaptation that did not succeed ended."""
    error = job.get("error") or {}
    reason = f": {error['detail']} ({error['code']})" if error else ""
    return f"the adaptation {job['state']}{reason}"
