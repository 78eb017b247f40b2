"""The examples in the docstrings of the places that everything else builds on."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

import cli.output.files
import models.bank
import normbank.anatomy
import normbank.imaging.geometry
import normbank.imaging.headers
import normbank.imaging.sides

MODULES = (
    cli.output.files,
    models.bank,
    normbank.anatomy,
    normbank.imaging.geometry,
    normbank.imaging.headers,
    normbank.imaging.sides,
)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_run(module: ModuleType) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0
