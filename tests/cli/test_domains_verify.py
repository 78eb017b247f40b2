"""`normbank domains verify`, against a service that answers."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine
from typer.testing import CliRunner

from cli.local.valkey import EmbeddedValkey
from cli.main import app
from normbank.config import Settings
from normbank.entities import Role
from tests.support.api import serve, wait_until


def test_all_domains_are_verified_and_a_quarantine_is_an_error(
    engine: Engine, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    url = engine.url.render_as_string(hide_password=False)
    settings = Settings(database_url=url, redis_url=valkey.url, data_dir=tmp_path, poll_s=0)
    with serve(settings) as api:
        api.make_keys()
        wait_until(lambda: api.client(None).get("/readyz").status_code == 200)
        (version,) = api.add_domain(states=(401.0,))
        good = api.core.versions.state_bytes(version.sha256)
        arguments = ["domains", "verify", "--url", api.url, "--key", api.keys[Role.ADMIN]]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        api.core.versions.mend(version.sha256, b"rotten")
        refused = CliRunner().invoke(app, [*arguments, "drawn"])
        assert refused.exit_code == 1
        assert "refused" in refused.output
        api.core.versions.mend(version.sha256, good)
        lifted = CliRunner().invoke(app, arguments)
        assert (lifted.exit_code, "sound" in lifted.output) == (0, True)
