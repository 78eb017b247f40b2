"""The alert rules ask for metrics that exist."""

from __future__ import annotations

import re
from pathlib import Path

from ruamel.yaml import YAML

from app.telemetry import Telemetry
from normbank.entities import AuditHead

RULES = Path(__file__).parents[2] / "deploy" / "prometheus-rules.yml"


def test_every_metric_in_an_alert_is_exposed():
    telemetry = Telemetry()
    telemetry.count_request("GET", "/livez", 200, 0.1)
    telemetry.time_stages({"total": 1.0})
    telemetry.watch(dict, lambda: {("adapt", "queued"): 1}, lambda: AuditHead(1, "a" * 64))
    exposed = telemetry.exposition().decode()
    rules = YAML(typ="safe").load(RULES)["groups"][0]["rules"]
    wanted = {name for rule in rules for name in re.findall(r"normbank_\w+", rule["expr"])}
    assert wanted
    for name in wanted:
        assert re.search(rf"^{name}[{{ ]", exposed, re.MULTILINE), name
