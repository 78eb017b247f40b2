"""`normbank adapt`: adapt a domain to its labelled cases, and follow the job."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.client import DEFAULT_URL
from cli.options import Data, Key, Url, open_client, parse_json
from cli.output.adaptation import failure_reason, follow_job, print_adaptation
from cli.output.terminal import fail
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
    options = {"seed": seed, "steps": steps}
    settings |= {name: value for name, value in options.items() if value is not None}
    with open_client(url, key, data) as client:
        job = client.adapt(domain_id, settings)
        if not follow:
            typer.echo(job["id"])
            return
        job = follow_job(client, job["id"])
        if job["state"] != JobState.SUCCEEDED:
            fail(failure_reason(job))
        print_adaptation(client, domain_id, job)
