"""`normbank …`: the service, its API and its keys from a terminal."""

from __future__ import annotations

import typer

from cli import (
    adapt,
    audit,
    demo,
    domains,
    experiment,
    init,
    keys,
    pacs,
    segment,
    train,
    up,
    upgrade,
)

app = typer.Typer(
    name="normbank",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Brain MR segmentation that learns new scanners. Research use; not a medical device.",
)
app.command()(up.up)
app.command()(init.init)
app.command()(segment.segment)
app.add_typer(domains.app, name="domains")
app.command()(adapt.adapt)
app.command()(upgrade.upgrade)
app.add_typer(keys.app, name="keys")
app.add_typer(pacs.app, name="pacs")
app.add_typer(audit.app, name="audit")
app.command()(demo.demo)
app.command()(train.train)
app.add_typer(experiment.app, name="experiment")
