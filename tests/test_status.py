"""The maps are total, final is final, and an unknown word is not."""

from __future__ import annotations

import pytest

from mlflow_azure_backend.status import (
    RUN_STATUS,
    STATUS_OF_REASON,
    TRANSITIONS,
    JobState,
    JobStatus,
    TerminationReason,
)

FINAL = {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED}


def test_every_status_and_every_reason_has_its_place() -> None:
    assert set(RUN_STATUS) == set(TRANSITIONS) == set(JobStatus)
    assert set(STATUS_OF_REASON) == set(TerminationReason)
    assert set(STATUS_OF_REASON.values()) == FINAL


def test_final_is_final() -> None:
    assert {status for status in JobStatus if status.is_final} == FINAL
    assert {status for status in JobStatus if not TRANSITIONS[status]} == FINAL


@pytest.mark.parametrize("word", ["", "completed", "Succeeded", "Zombie", "FINISHED"])
def test_an_unknown_word_is_unknown_and_not_final(word: str) -> None:
    assert JobStatus.parse(word) is JobStatus.UNKNOWN
    assert not JobStatus.parse(word).is_final
    assert JobState(JobStatus.parse(word)).run_status == "RUNNING"


@pytest.mark.parametrize("status", list(JobStatus))
def test_mlflow_knows_every_word(status: JobStatus) -> None:
    from mlflow.entities import RunStatus

    assert RunStatus.is_terminated(RunStatus.from_string(RUN_STATUS[status])) == status.is_final
    assert JobStatus.parse(status.value) is status
