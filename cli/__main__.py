"""`python -m cli` is `normbank`."""

from cli.main import app

app()
