"""Shared by the tests of sweeps."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ganstudy.cli import app


@pytest.fixture
def run(tracking_store):
    """Run the command line in this process, on a store that is there already: seconds faster."""

    def invoke(*arguments: object):
        more = ["--tracking-uri", tracking_store, "--in-process"]
        return CliRunner().invoke(app, [*map(str, arguments), *more])

    return invoke
