"""`normbank domains …`: list, add and change domains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from cli.client import DEFAULT_URL
from cli.options import Data, Key, Url, open_client
from cli.output.tables import MISSING, dice, mean_dice, table
from cli.output.terminal import console, fail

app = typer.Typer(no_args_is_help=True, help="Scanners and protocols.")


class ManyValues(TyperCommand):
    """Lets `--scans a b c` stand for `--scans a --scans b --scans c`, for shell patterns."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, repeat_flags(args, ("--scans", "--labels")))


def repeat_flags(arguments: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Write a flag again before each of its values."""
    expanded: list[str] = []
    flag = ""
    for argument in arguments:
        if argument.startswith("-"):
            flag = argument if argument in flags else ""
            if not flag:
                expanded.append(argument)
        else:
            expanded += [flag, argument] if flag else [argument]
    return expanded


Scans = Annotated[
    list[Path] | None, typer.Option(exists=True, dir_okay=False, help="One or more scans.")
]
Labels = Annotated[
    list[Path] | None,
    typer.Option(exists=True, dir_okay=False, help="Their labels, in the same order."),
]


@app.command("list")
def list_domains(url: Url = DEFAULT_URL, key: Key = "", data: Data = None) -> None:
    """Every domain, its cases and the version it serves."""
    with open_client(url, key, data) as client:
        rows = [
            (
                domain["id"],
                domain["name"],
                domain["case_count"],
                domain["active_version"] or MISSING,
            )
            for domain in client.items("/domains")
        ]
    console().print(table("Domains", ("id", "name", "cases", "version"), rows))


@app.command()
def show(
    domain_id: Annotated[str, typer.Argument(metavar="ID")],
    url: Url = DEFAULT_URL,
    key: Key = "",
    data: Data = None,
) -> None:
    """One domain, as the API answers it."""
    with open_client(url, key, data) as client:
        console().print_json(data=client.get(f"/domains/{domain_id}"))


AcceptDoubtful = Annotated[
    bool,
    typer.Option(
        "--accept-doubtful", help="Take labels that seem not to be those of their scan, flagged."
    ),
]


@app.command(cls=ManyValues)
def add(
    domain_id: Annotated[str, typer.Argument(metavar="ID")],
    name: Annotated[str, typer.Option(help="For people; the id when left out.")] = "",
    label_scheme: Annotated[
        str, typer.Option(help="freesurfer, neuromorphometrics, muse or normbank")
    ] = "freesurfer",
    scans: Scans = None,
    labels: Labels = None,
    structures: Annotated[
        str, typer.Option(help="Annotated structures, comma-separated; else those present.")
    ] = "",
    match: Annotated[str, typer.Option(help="JSON rules over header facts.")] = "",
    accept_doubtful: AcceptDoubtful = False,
    url: Url = DEFAULT_URL,
    key: Key = "",
    data: Data = None,
) -> None:
    """Add a domain with its labelled cases; ID comes first."""
    pairs = _pairs(scans, labels)
    optional = {"structures": structures, "match": match}
    fields = {"id": domain_id, "name": name or domain_id, "label_scheme": label_scheme}
    fields |= {field: text for field, text in optional.items() if text}
    with open_client(url, key, data) as client:
        domain = client.send_cases("/domains", fields, *pairs, accept_doubtful=accept_doubtful)
    typer.echo(f"{domain['id']}: {domain['case_count']} cases; next: normbank adapt {domain['id']}")


@app.command(cls=ManyValues)
def cases(
    domain_id: Annotated[str, typer.Argument(metavar="ID")],
    scans: Scans = None,
    labels: Labels = None,
    accept_doubtful: AcceptDoubtful = False,
    url: Url = DEFAULT_URL,
    key: Key = "",
    data: Data = None,
) -> None:
    """Add labelled cases to a domain; ID comes first."""
    pairs = _pairs(scans, labels)
    with open_client(url, key, data) as client:
        client.send_cases(
            f"/domains/{domain_id}/cases", {}, *pairs, accept_doubtful=accept_doubtful
        )
        domain = client.get(f"/domains/{domain_id}")
    typer.echo(f"{domain_id}: {domain['case_count']} cases")


@app.command()
def versions(
    domain_id: Annotated[str, typer.Argument(metavar="ID")],
    url: Url = DEFAULT_URL,
    key: Key = "",
    data: Data = None,
) -> None:
    """Every version of a domain; the served one carries a star."""
    with open_client(url, key, data) as client:
        rows = [
            (
                f"{version['number']}{'*' if version['active'] else ''}",
                version["parent"] or MISSING,
                dice(mean_dice(version["before"])),
                dice(mean_dice(version["after"])),
                version["created_at"],
            )
            for version in client.get(f"/domains/{domain_id}/metrics")["versions"]
        ]
    columns = ("version", "from", "Dice before", "Dice after", "made")
    console().print(table(domain_id, columns, rows))


@app.command()
def promote(
    domain_id: Annotated[str, typer.Argument(metavar="ID")],
    number: Annotated[int, typer.Argument(metavar="VERSION")],
    url: Url = DEFAULT_URL,
    key: Key = "",
    data: Data = None,
) -> None:
    """Serve another version: promotion and rollback alike."""
    with open_client(url, key, data) as client:
        client.change("POST", domain_id, f"/versions/{number}/promote")
    typer.echo(f"{domain_id} serves version {number}")


@app.command()
def verify(
    domain_id: Annotated[str | None, typer.Argument(metavar="[ID]")] = None,
    url: Url = DEFAULT_URL,
    key: Key = "",
    data: Data = None,
) -> None:
    """Check the stored states of a domain, or of all, and lift or set their quarantine.

    Ends with status 1 where a version is quarantined.
    """
    with open_client(url, key, data) as client:
        ids = [domain_id] if domain_id else [domain["id"] for domain in client.items("/domains")]
        checked = [
            (name, version)
            for name in ids
            for version in client.call("POST", f"/domains/{name}/verify").json()["items"]
        ]
    rows = [
        (name, f"{v['number']}{'*' if v['active'] else ''}", v["quarantined"] or "sound")
        for name, v in checked
    ]
    console().print(table("Stored states", ("domain", "version", "check"), rows))
    if any(version["quarantined"] for _, version in checked):
        raise typer.Exit(1)


@app.command()
def archive(
    domain_id: Annotated[str, typer.Argument(metavar="ID")],
    url: Url = DEFAULT_URL,
    key: Key = "",
    data: Data = None,
) -> None:
    """Stop serving a domain; its versions stay on record."""
    with open_client(url, key, data) as client:
        client.change("DELETE", domain_id)
    typer.echo(f"{domain_id} is archived")


def _pairs(scans: list[Path] | None, labels: list[Path] | None) -> tuple[list[Path], list[Path]]:
    """Check that scans and labels pair up."""
    scans, labels = scans or [], labels or []
    if len(scans) != len(labels):
        fail(f"{len(scans)} scans but {len(labels)} labels: they are paired in order")
    return scans, labels
