"""Everything that one emulator has; each handler gets it with its call."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_azure_backend.emulator.authority import Authority
from mlflow_azure_backend.emulator.clock import Clock
from mlflow_azure_backend.emulator.exchanges import Exchanges
from mlflow_azure_backend.emulator.execution import Execution
from mlflow_azure_backend.emulator.execution.images import remove_images
from mlflow_azure_backend.emulator.execution.mounts import Mount
from mlflow_azure_backend.emulator.execution.places import Place
from mlflow_azure_backend.emulator.faults import Faults
from mlflow_azure_backend.emulator.jobs import Jobs
from mlflow_azure_backend.emulator.nodes import Cluster
from mlflow_azure_backend.emulator.orders import Orders
from mlflow_azure_backend.emulator.settings import Settings
from mlflow_azure_backend.emulator.state import State
from mlflow_azure_backend.emulator.storage import Storage
from mlflow_azure_backend.emulator.tokens import Tokens
from mlflow_azure_backend.emulator.tracking import Tracking


@dataclass(frozen=True)
class World:
    """The parts.

    Attributes:
        folder: The state folder, 0700.
        settings: What this emulator is.
        clock: The service's time.
        state: Resources as JSON documents.
        authority: Certificates.
        tokens: Bearer tokens.
        storage: The storage account.
        tracking: MLflow's server.
        jobs: The jobs.
        faults: What is ordered to go wrong.
        exchanges: What was asked and answered lately.
        building: Held while an environment is built, by its key.
        address: The proxy's port, once it listens.
        clusters: The nodes of clusters, by their names in small letters.
        mounts: Outputs that several jobs write to, by where they go.
        images: Names of the images that were built, removed at the end.
        artifacts: Artifacts that were made since the start, each once.
        orders: What tests ordered to happen to jobs, by the job's name.
        closing: Set once the emulator ends.
    """

    folder: Path
    settings: Settings
    clock: Clock
    state: State
    authority: Authority
    tokens: Tokens
    storage: Storage
    tracking: Tracking
    jobs: Jobs
    faults: Faults = field(default_factory=Faults)
    exchanges: Exchanges = field(default_factory=Exchanges)
    building: dict[str, asyncio.Lock] = field(default_factory=dict)
    address: list[int] = field(default_factory=list)
    clusters: dict[str, Cluster] = field(default_factory=dict)
    mounts: dict[Place, Mount] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)
    artifacts: set[str] = field(default_factory=set)
    orders: dict[str, Orders] = field(default_factory=dict)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def open(cls, folder: Path, cache: Path, settings: Settings) -> World:
        """Build the parts upon a state folder; nothing is started yet."""
        for gone in ("images", "mounts"):  # what they told of went with the last emulator
            shutil.rmtree(folder / gone, ignore_errors=True)
        certificates = folder / "certificates"
        certificates.mkdir(mode=0o700, exist_ok=True)
        clock, authority = Clock(), Authority(certificates)
        state, tracking = State(folder / "state.db"), Tracking(settings, folder)
        return cls(
            folder=folder,
            settings=settings,
            clock=clock,
            state=state,
            authority=authority,
            tokens=Tokens(certificates, settings.tenant_id, clock),
            storage=Storage(settings, clock, authority, folder, cache),
            tracking=tracking,
            jobs=Jobs(state, clock, tracking),
        )

    @property
    def port(self) -> int:
        """The proxy's port."""
        return self.address[0]

    def cluster(self, name: str) -> Cluster:
        """The nodes of the cluster of this name."""
        return self.clusters.setdefault(name.lower(), Cluster(self.clock))

    def orders_for(self, name: str) -> Orders:
        """What is ordered for the job of this name."""
        return self.orders.setdefault(name, Orders())

    def carry_out(self, execution: Execution) -> None:
        """Let a job be carried out beside all else."""
        name = execution.job.name
        task = asyncio.ensure_future(execution.run())
        self.jobs.work[name] = task
        task.add_done_callback(lambda _: self.jobs.work.pop(name, None))

    async def close(self) -> None:
        """Stop what was started; the state stays on disk."""
        self.closing.set()
        await self.jobs.close()
        await remove_images(self.images)
        await self.tracking.close()
        await self.storage.close()
        self.state.close()
