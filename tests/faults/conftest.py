"""Shared by the tests of faults."""

from __future__ import annotations

import pytest

from tests.faults.studies import RecorderHere, Studies, make_studies


@pytest.fixture(scope="session")
def studies(tracking_store, own_cache, tmp_path_factory) -> Studies:
    """The tiny study, made once: copy it before you damage it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ganstudy.sweep.driver.Recorder", RecorderHere)
        return make_studies(tmp_path_factory.mktemp("studies"), tracking_store)


@pytest.fixture
def recorder_here(monkeypatch) -> None:
    """Track in this process: one of its own takes seconds to start."""
    monkeypatch.setattr("ganstudy.sweep.driver.Recorder", RecorderHere)
