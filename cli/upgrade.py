"""`normbank upgrade`: adapt again, on the current backbone, what is served on an older one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.adapt import scored_version, submit, watch, why_not
from cli.client import DEFAULT_URL, ApiError, Client, Data, Key, Url, connect
from cli.output.tables import mean_dice
from cli.output.terminal import MISSING, console, dice, fail, note, table
from normbank.entities import JobState

LEAST_CASES = 2
CANDIDATE = {"publish": False}
ENDED_BADLY = (JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True)
class Outcome:
    """What came of one domain.

    Attributes
    ----------
    served, candidate : versions; no candidate where the adaptation failed
    served_dice, candidate_dice : on the validation half, each on its own
        backbone; None where it could not be scored
    promoted : whether the candidate is served now
    trouble : why it did not go on, empty where it did
    """

    domain: str
    served: int | None
    candidate: int | None = None
    served_dice: float | None = None
    candidate_dice: float | None = None
    promoted: bool = False
    trouble: str = ""

    @property
    def better(self) -> bool:
        """Whether the candidate beats what is served; a score beats none."""
        if self.candidate_dice is None:
            return False
        return self.served_dice is None or self.candidate_dice > self.served_dice

    @property
    def verdict(self) -> str:
        if self.trouble:
            return self.trouble
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
    with connect(url, key, data) as client:
        try:
            current = client.get("/backbone")["sha256"]
            older = older_domains(client, domain, current)
            ready = [one for one in older if one["case_count"] >= LEAST_CASES]
            outcomes = adapt_all(client, ready, current)
            if promote:
                outcomes = [promoted(client, one) for one in outcomes]
        except ApiError as error:
            fail(str(error))
    report(outcomes, [one for one in older if one not in ready])
    if any(one.trouble for one in outcomes):
        raise typer.Exit(1)


def older_domains(client: Client, domain_id: str, current: str) -> list[Mapping[str, Any]]:
    """Domains that serve a version of another backbone; one or all."""
    found = [client.get(f"/domains/{domain_id}")] if domain_id else client.items("/domains")
    return [
        one for one in found if one["active_version"] is not None and one["backbone"] != current
    ]


def adapt_all(client: Client, domains: Sequence[Mapping[str, Any]], current: str) -> list[Outcome]:
    """Queue an adaptation of every domain, then follow one after the other."""
    queued = [(one, _queue(client, one, current)) for one in domains]
    outcomes = []
    for one, job in queued:
        outcome = Outcome(one["id"], one["active_version"])
        if isinstance(job, ApiError):
            outcomes.append(replace(outcome, trouble=str(job)))
        else:
            note(one["id"])
            outcomes.append(_followed(client, outcome, job["id"]))
    return outcomes


def _queue(client: Client, domain: Mapping[str, Any], current: str) -> Mapping[str, Any] | ApiError:
    """A domain's job, the one from before where nothing has changed; or the refusal."""
    facts = (domain["id"], domain["active_version"], domain["case_count"], current[:16])
    once = "upgrade " + " ".join(str(fact) for fact in facts)
    try:
        job = submit(client, domain["id"], CANDIDATE, once=once)
        return submit(client, domain["id"], CANDIDATE) if job["state"] in ENDED_BADLY else job
    except ApiError as error:
        return error


def _followed(client: Client, outcome: Outcome, job_id: str) -> Outcome:
    """Wait for a job; the scores that it leaves in the domain's metrics."""
    made = None
    try:
        job = watch(client, job_id)
        if job["state"] == JobState.SUCCEEDED:
            metrics = client.get(f"/domains/{outcome.domain}/metrics")
            made = scored_version(metrics, job["result"] or {})
    except ApiError as error:
        return replace(outcome, trouble=str(error))
    if made is None:
        return replace(outcome, trouble=why_not(job))
    replaced = made["details"]["replaced"]
    return replace(
        outcome,
        served=replaced["version"],
        candidate=made["number"],
        served_dice=replaced["dice"],
        candidate_dice=mean_dice(made["after"]),
    )


def promoted(client: Client, outcome: Outcome) -> Outcome:
    """Serve a candidate that is better than what it was compared with, if that is served still."""
    if not outcome.better:
        return outcome
    path = f"/domains/{outcome.domain}"
    try:
        now = client.call("GET", path)
        if now.json()["active_version"] != outcome.served:
            return replace(outcome, trouble="another version is served by now")
        client.call(
            "POST",
            f"{path}/versions/{outcome.candidate}/promote",
            json={"reason": "better on the current backbone"},
            headers={"If-Match": now.headers["ETag"]},
        )
    except ApiError as error:
        return replace(outcome, trouble=str(error))
    return replace(outcome, promoted=True)


def report(outcomes: Sequence[Outcome], kept: Sequence[Mapping[str, Any]]) -> None:
    """The table, what to run next, and who stays where they are."""
    screen = console()
    if outcomes:
        screen.print(outcome_table(outcomes))
    for one in outcomes:
        if one.better and not one.promoted:
            typer.echo(f"normbank domains promote {one.domain} {one.candidate}")
    for domain in kept:
        typer.echo(
            f"{domain['id']}: kept on the older backbone; it has {domain['case_count']} "
            f"stored cases, an adaptation needs {LEAST_CASES}"
        )
    if not outcomes and not kept:
        typer.echo("nothing is served on an older backbone")


def outcome_table(outcomes: Sequence[Outcome]) -> Table:
    """Dice on the validation half, each version on its own backbone."""
    rows = [
        (
            one.domain,
            one.served or MISSING,
            dice(one.served_dice),
            one.candidate or MISSING,
            dice(one.candidate_dice),
            one.verdict,
        )
        for one in outcomes
    ]
    columns = ("domain", "served version", "Dice", "candidate", "Dice", "")
    return table("Candidates on the current backbone", columns, rows)
