"""The contract between the river and the places where jobs run.

A new target is one file beside this one and one line in ``TARGETS`` (``compute/__init__.py``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final

from mlflow_azure_backend.config import BackendConfig, MlflowOptions
from mlflow_azure_backend.errors import ConfigError
from mlflow_azure_backend.interrupts import raise_lost
from mlflow_azure_backend.job import JobHandle, JobRequest, PreparedJob, TrackingContext, Tracks
from mlflow_azure_backend.journal import Journal, RunFolder
from mlflow_azure_backend.status import JobState

Progress = Callable[[str], None]
"""Called with one line of text when a slow step begins; never raises."""

_CHANGE_SECONDS: Final = 1.0
"""How long to wait for news before the state is looked at all the same."""
_LINE_END: Final = ord("\n")


class ComputeTarget(ABC):
    """One kind of place where a job can run.

    One instance serves one client process and may be used from several threads. Apart from ``submit``, ``cancel`` and
    ``release`` every method may be called again at any time with the same answer or a newer one.
    """

    name: ClassVar[str]
    """How ``backend_config`` and the journal call it."""
    is_elsewhere: ClassVar[bool] = False
    """Whether its jobs are on other machines, which have to be asked how they do."""

    @property
    def interrupt_cancels(self) -> bool:
        """Whether Ctrl-C ends the job (True) or only the watching of it (False), unless ``on_interrupt`` says else."""
        return True

    def tracks(self, _tracking: TrackingContext, _prepared: PreparedJob) -> Tracks:
        """How the job's run and the tracking store's will belong together."""
        return "joins"

    @abstractmethod
    def check(self, config: BackendConfig, options: MlflowOptions) -> None:
        """Refuse what this target cannot honour. No side effects, does not block.

        Raises:
            ConfigError: A key that this target cannot honour.
            TargetError: The target is not usable here.
        """

    def plan(self, _request: JobRequest) -> Mapping[str, Any] | None:
        """What would be submitted, in the target's own words; None when it has none. Asks nobody, changes nothing.

        Raises:
            BackendError: It could not be submitted.
        """
        return None

    @abstractmethod
    def prepare(self, request: JobRequest, progress: Progress) -> PreparedJob:
        """Make everything ready that costs nothing while nobody runs it: environment, inputs.

        May block for minutes. Idempotent: what an interrupted call left behind is used or made again, never trusted.

        Raises:
            EnvironmentUnavailable: The environment cannot be had here.
            ParameterError: An input cannot be fetched.
        """

    @abstractmethod
    def handle_for(self, run: RunFolder, run_id: str) -> JobHandle:
        """How the job will be found. No side effects: the answer is put on disk before ``submit`` has any."""

    @abstractmethod
    def submit(self, request: JobRequest, prepared: PreparedJob, run: RunFolder, *, attached: bool) -> None:
        """Start the job that ``run`` has recorded; the only place with side effects that somebody pays for.

        Returns when the job has been accepted, whatever becomes of it: a command that cannot be started is a job that
        failed. Exactly one job exists for one ``run``, also when this is called again after its answer was lost.

        Args:
            request: What to run.
            prepared: What ``prepare`` returned for it.
            run: Its folder in the journal, where its name is on disk already.
            attached: The job ends when this client dies.

        Raises:
            TargetError: The target did not accept it; then there is no job.
        """

    @abstractmethod
    def state(self, handle: JobHandle) -> JobState:
        """What has become of the job, as far as is known now. Does not block longer than one request.

        A final answer never changes again. A job of which every trace is gone is final, with the reason LOST.
        """

    def glance(self, handle: JobHandle) -> JobState:
        """``state`` for a table of many: a network that it takes is waited for some seconds only.

        Raises:
            WorkspaceError: No answer by then.
        """
        return self.state(handle)

    @abstractmethod
    def read_log(self, handle: JobHandle, offset: int) -> bytes:
        """What the job wrote from byte ``offset`` on, at most some 256 KiB; empty when there is no more yet.

        Byte-exact. Complete when it is empty after ``state`` was final.
        """

    @abstractmethod
    def wait_for_change(self, handle: JobHandle, timeout: float) -> None:
        """Block until the log or the state may have changed, at most ``timeout`` seconds. May return early.

        Several threads may wait for one handle: each is told.
        """

    @abstractmethod
    def cancel(self, handle: JobHandle, *, at_once: bool = False) -> None:
        """Ask for the job's end and return; a job that has ended already is left alone.

        Args:
            handle: The job.
            at_once: Without grace for its processes.
        """

    @abstractmethod
    def release(self, handle: JobHandle) -> None:
        """Forget what this client holds of the job (descriptors, connections). A detached job goes on."""

    def sweep(self, journal: Journal) -> Iterator[str]:  # noqa: ARG002 - most targets leave nothing
        """Remove what ended jobs could not remove themselves; a line for each thing that stays."""
        yield from ()

    def read(
        self,
        handle: JobHandle,
        offset: int,
        *,
        follow: bool,
        on_state: Callable[[JobState], None] = lambda _: None,
    ) -> Iterator[bytes]:
        """The log from byte ``offset`` on, in pieces: what there is now, or (``follow``) until the job has ended.

        ``on_state`` is told each state that was seen, before what the job had written by then.
        """
        while True:
            raise_lost()
            state = self.state(handle)
            on_state(state)
            final = state.status.is_final
            while chunk := self.read_log(handle, offset):
                offset += len(chunk)
                yield chunk
            if final or not follow:
                return
            self.wait_for_change(handle, _CHANGE_SECONDS)

    def offset_of_tail(self, handle: JobHandle, lines: int) -> int:
        """Where the last ``lines`` lines of what the log holds now begin; a line without its end is a line."""
        starts, offset = deque([0], maxlen=lines + 1), 0
        while chunk := self.read_log(handle, offset):
            starts.extend(offset + index + 1 for index, byte in enumerate(chunk) if byte == _LINE_END)
            offset += len(chunk)
        if starts[-1] == offset and offset:  # the last line is whole, so no other begins after it
            return starts[0] if lines else offset
        return starts[1] if len(starts) > lines else starts[0]


def resolve_secrets(config: BackendConfig, environ: Mapping[str, str]) -> dict[str, str]:
    """The values of ``secrets``, which are references to the client's own variables.

    Raises:
        ConfigError: A variable is not set.
    """
    wanted = {name: reference.removeprefix("env:") for name, reference in config.secrets.items()}
    if missing := sorted({variable for variable in wanted.values() if variable not in environ}):
        names = ", ".join(missing)
        raise ConfigError(
            f"{names} is not set in this environment", where="secrets", next_step=f"export {missing[0]}=…"
        )
    return {name: environ[variable] for name, variable in wanted.items()}
