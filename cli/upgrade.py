"""`normbank upgrade`: adapt domains of an older backbone again, on the current one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.client import DEFAULT_URL, ApiError, Client
from cli.options import Data, Key, Url, open_client
from cli.output.adaptation import failure_reason, follow_job, scored_version
from cli.output.tables import MISSING, dice, mean_dice, table
from cli.output.terminal import console, note
from normbank.entities import JobState

LEAST_CASES = 2
CANDIDATE = {"publish": False}
ENDED_BADLY = (JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True)
class Outcome:
    """Result of one domain's upgrade.

    Attributes
    ----------
    served, candidate : versions; no candidate where the adaptation failed
    served_dice, candidate_dice : on the validation half, each on its own
        backbone; None where it could not be scored
    promoted : whether the candidate is served now
    error : why it ended early, empty where it did not
    """

    domain: str
    served: int | None
    candidate: int | None = None
    served_dice: float | None = None
    candidate_dice: float | None = None
    promoted: bool = False
    error: str = ""

    @property
    def better(self) -> bool:
        """Whether the candidate beats what is served; a score beats none."""
        if self.candidate_dice is None:
            return False
        return self.served_dice is None or self.candidate_dice > self.served_dice

    @property
    def verdict(self) -> str:
        """Last column of the table."""
        if self.error:
            return self.error
        if self.promoted:
            return "promoted"
        return "better" if self.better else "not better"


def upgrade(
    domain: Annotated[
        str, typer.Option(metavar="ID", help="This domain alone; else all of them.")
    ] = "",
    promote: Annotated[
        bool, typer.Option("--promote", help="Serve the candidates that are better.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = "",
    data: Data = None,
) -> None:
    """Adapt the domains of an older backbone on the current one, from their stored cases.

    The new versions are candidates: what is served stays until one is
    promoted. Run again within a day, it goes on with the jobs it has started.
    """
    with open_client(url, key, data) as client:
        current = client.get("/backbone")["sha256"]
        older = older_domains(client, domain, current)
        ready = [each for each in older if each["case_count"] >= LEAST_CASES]
        outcomes = adapt_all(client, ready, current)
        if promote:
            outcomes = [promoted(client, outcome) for outcome in outcomes]
    print_outcomes(outcomes, [other for other in older if other not in ready])
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)


def older_domains(client: Client, domain_id: str, current: str) -> list[Mapping[str, Any]]:
    """List the domains that serve a version of another backbone; one or all."""
    domains = [client.get(f"/domains/{domain_id}")] if domain_id else client.items("/domains")
    return [
        domain
        for domain in domains
        if domain["active_version"] is not None and domain["backbone"] != current
    ]


def adapt_all(client: Client, domains: Sequence[Mapping[str, Any]], current: str) -> list[Outcome]:
    """Queue an adaptation of every domain, then follow one after the other."""
    queued = [(domain, _queue(client, domain, current)) for domain in domains]
    outcomes = []
    for domain, job in queued:
        outcome = Outcome(domain["id"], domain["active_version"])
        if isinstance(job, ApiError):
            outcomes.append(replace(outcome, error=str(job)))
        else:
            note(domain["id"])
            outcomes.append(_follow(client, outcome, job["id"]))
    return outcomes


def _queue(client: Client, domain: Mapping[str, Any], current: str) -> Mapping[str, Any] | ApiError:
    """Queue a domain's job, or find that of an earlier run; or the refusal.

    The idempotency key holds what a new adaptation would depend on.
    """
    inputs = (domain["id"], domain["active_version"], domain["case_count"], current[:16])
    key = "upgrade " + " ".join(str(value) for value in inputs)
    try:
        job = client.adapt(domain["id"], CANDIDATE, idempotency_key=key)
        return client.adapt(domain["id"], CANDIDATE) if job["state"] in ENDED_BADLY else job
    except ApiError as error:
        return error


def _follow(client: Client, outcome: Outcome, job_id: str) -> Outcome:
    """Wait for a job, then read the candidate's scores from the domain's metrics."""
    version = None
    try:
        job = follow_job(client, job_id)
        if job["state"] == JobState.SUCCEEDED:
            metrics = client.get(f"/domains/{outcome.domain}/metrics")
            version = scored_version(metrics, job["result"] or {})
    except ApiError as error:
        return replace(outcome, error=str(error))
    if version is None:
        return replace(outcome, error=failure_reason(job))
    replaced = version["details"]["replaced"]
    return replace(
        outcome,
        served=replaced["version"],
        candidate=version["number"],
        served_dice=replaced["dice"],
        candidate_dice=mean_dice(version["after"]),
    )


def promoted(client: Client, outcome: Outcome) -> Outcome:
    """Serve a candidate that is better than what it was compared with, if that is served still."""
    if not outcome.better:
        return outcome
    path = f"/domains/{outcome.domain}"
    try:
        response = client.call("GET", path)
        if response.json()["active_version"] != outcome.served:
            return replace(outcome, error="another version is served by now")
        client.call(
            "POST",
            f"{path}/versions/{outcome.candidate}/promote",
            json={"reason": "better on the current backbone"},
            headers={"If-Match": response.headers["ETag"]},
        )
    except ApiError as error:
        return replace(outcome, error=str(error))
    return replace(outcome, promoted=True)


def print_outcomes(outcomes: Sequence[Outcome], kept: Sequence[Mapping[str, Any]]) -> None:
    """Print the table, the next commands, and the domains that stay on the older backbone."""
    screen = console()
    if outcomes:
        screen.print(outcome_table(outcomes))
    for outcome in outcomes:
        if outcome.better and not outcome.promoted:
            typer.echo(f"normbank domains promote {outcome.domain} {outcome.candidate}")
    for domain in kept:
        typer.echo(
            f"{domain['id']}: kept on the older backbone; it has {domain['case_count']} "
            f"stored cases, an adaptation needs {LEAST_CASES}"
        )
    if not outcomes and not kept:
        typer.echo("nothing is served on an older backbone")


def outcome_table(outcomes: Sequence[Outcome]) -> Table:
    """Tabulate Dice on the validation cases, each version on its own backbone."""
    rows = [
        (
            outcome.domain,
            outcome.served or MISSING,
            dice(outcome.served_dice),
            outcome.candidate or MISSING,
            dice(outcome.candidate_dice),
            outcome.verdict,
        )
        for outcome in outcomes
    ]
    columns = ("domain", "served version", "Dice", "candidate", "Dice", "")
    return table("Candidates on the current backbone", columns, rows)
