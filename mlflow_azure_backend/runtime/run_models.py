"""MLflow 3's logged models where the service has none: a model is then a folder of its run's artifacts, as in MLflow 2.

Such a model's id says which run and which folder (``m-RUN.NAME``), so that it is found without any record of it; its
parameters are its run's, its tags are its run's with a prefix. Whether the service has logged models shows when one is
made: a workspace answers 404 without a word (azure-sdk-for-python#44896).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.entities import PagedList

from .mlflow_api import ServiceRefusal

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.store.tracking.rest_store import RestStore as _Base
else:
    _Base = object

_PREFIX = "m-"
_TAGS = "mlflow.azureml.model."
"""What the tags of a model begin with among those of its run; then come its name and a dot."""
_TYPE = "mlflow.modelType"
_logger = logging.getLogger(__name__)
_told: set[str] = set()


def model_id_of(run_id: str, name: str) -> str:
    """The id of the model in folder ``name`` of a run's artifacts."""
    return f"{_PREFIX}{run_id}.{quote(name, safe='')}"


def run_and_name(model_id: str | None) -> tuple[str, str] | None:
    """The run and the folder of a model that is kept among its run's artifacts; None for any other model's id."""
    if model_id is None or not model_id.startswith(_PREFIX) or "." not in model_id:
        return None
    run_id, _, name = model_id[len(_PREFIX) :].rpartition(".")
    return run_id, unquote(name)


class RunModels(_Base):
    """What a tracking store answers about models; goes before MLflow's REST store among the bases."""

    def create_logged_model(
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: Sequence[Any] | None = None,
        params: Sequence[Any] | None = None,
        model_type: str | None = None,
    ) -> LoggedModel:
        """Make a model; one of no run gets a run of its own where the service has no logged models."""
        try:
            return super().create_logged_model(experiment_id, name, source_run_id, tags, params, model_type)
        except ServiceRefusal as refused:
            if not refused.is_no_such_endpoint:
                raise
        _tell_once()
        name = name or "model"
        run = self.get_run(source_run_id or self._run_for(experiment_id, name))
        model_id = model_id_of(run.info.run_id, name)
        missing = [Param(one.key, one.value) for one in params or () if one.key not in run.data.params]
        inherited = run.data.tags.items()
        own = {one.key: one.value for one in tags or () if (one.key, one.value) not in inherited}
        if model_type is not None:
            own[_TYPE] = model_type
        self.log_batch(run.info.run_id, [], missing, _run_tags(name, own))
        return self.get_logged_model(model_id)

    def _run_for(self, experiment_id: str, name: str) -> str:
        now = int(time.time() * 1000)
        run = self.create_run(experiment_id, "unknown", now, [], name)
        self.update_run_info(run.info.run_id, _status("FINISHED"), now, None)
        return str(run.info.run_id)

    def get_logged_model(self, model_id: str, *older: Any, **newer: Any) -> LoggedModel:
        """A model by its id."""
        place = run_and_name(model_id)
        if place is None:
            return super().get_logged_model(model_id, *older, **newer)
        from mlflow.entities import LoggedModel

        run_id, name = place
        run = self.get_run(run_id)
        tags = _model_tags(name, run)
        return LoggedModel(
            experiment_id=run.info.experiment_id,
            model_id=model_id,
            name=name,
            artifact_location=f"{run.info.artifact_uri}/{name}",
            creation_timestamp=run.info.start_time,
            last_updated_timestamp=run.info.end_time or run.info.start_time,
            model_type=tags.pop(_TYPE, None),
            source_run_id=run_id,
            tags=tags,
            params=dict(run.data.params),
            metrics=[],
        )

    def finalize_logged_model(self, model_id: str, status: Any) -> LoggedModel:
        """End the making of a model."""
        if run_and_name(model_id) is None:
            return super().finalize_logged_model(model_id, status)
        return self.get_logged_model(model_id)

    def search_logged_models(self, *arguments: Any, **options: Any) -> Any:
        """Find models; none where the service has no logged models: they are found as artifacts of their runs."""
        try:
            return super().search_logged_models(*arguments, **options)
        except ServiceRefusal as refused:
            if not refused.is_no_such_endpoint:
                raise
        return PagedList([], None)

    def log_logged_model_params(self, model_id: str, params: Sequence[Any]) -> None:
        """Add parameters to a model."""
        place = run_and_name(model_id)
        if place is None:
            super().log_logged_model_params(model_id, params)
        else:
            self.log_batch(place[0], [], [Param(one.key, one.value) for one in params], [])

    def set_logged_model_tags(self, model_id: str, tags: Sequence[Any]) -> None:
        """Set tags of a model."""
        place = run_and_name(model_id)
        if place is None:
            super().set_logged_model_tags(model_id, tags)
        else:
            self.log_batch(place[0], [], [], _run_tags(place[1], {one.key: one.value for one in tags}))

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """Remove a tag from a model."""
        place = run_and_name(model_id)
        if place is None:
            super().delete_logged_model_tag(model_id, key)
        else:
            self.delete_tag(place[0], f"{_prefix(place[1])}{key}")

    def delete_logged_model(self, model_id: str) -> None:
        """Delete a model.

        Raises:
            MlflowException: It is kept among its run's artifacts, of which a workspace deletes none.
        """
        if run_and_name(model_id) is None:
            super().delete_logged_model(model_id)
            return
        raise MlflowException(
            f"model {model_id} is kept among the artifacts of its run, which a workspace keeps for as long as the run; "
            "delete the run instead",
            INVALID_PARAMETER_VALUE,
        )

    def log_outputs(self, run_id: str, models: Sequence[Any]) -> None:
        """Note what models a run made; the id of one among the run's artifacts says it already."""
        others = _not_ours(models)
        if others:
            super().log_outputs(run_id, others)

    def log_inputs(self, run_id: str, datasets: Any = None, models: Sequence[Any] | None = None) -> None:
        """Note what a run has read."""
        others = _not_ours(models or ())
        if others:
            super().log_inputs(run_id, datasets, others)
        elif datasets:
            super().log_inputs(run_id, datasets)

    def log_metric(self, run_id: str, metric: Metric) -> None:
        """Log one value of a metric."""
        super().log_metric(run_id, _of_run(metric))

    def log_batch(
        self, run_id: str, metrics: Iterable[Metric], params: Iterable[Param], tags: Iterable[RunTag]
    ) -> None:
        """Log many things at once."""
        super().log_batch(run_id, [_of_run(one) for one in metrics], params, tags)


def _of_run(metric: Metric) -> Metric:
    """The metric without the id of a model that the service does not know."""
    if run_and_name(getattr(metric, "model_id", None)) is not None:
        metric = Metric(metric.key, metric.value, metric.timestamp, metric.step)
    return metric


def _not_ours(models: Iterable[Any]) -> list[Any]:
    return [one for one in models if run_and_name(one.model_id) is None]


def _prefix(name: str) -> str:
    """What the tags of a model begin with: each character that a tag's name may not have, by its number."""
    plain = (one if one.isascii() and (one.isalnum() or one in " -") else f"_{ord(one):x}_" for one in name)
    return f"{_TAGS}{''.join(plain)}."


def _run_tags(name: str, tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(f"{_prefix(name)}{key}", value) for key, value in tags.items()]


def _model_tags(name: str, run: Run) -> dict[str, str]:
    prefix = _prefix(name)
    return {key[len(prefix) :]: value for key, value in run.data.tags.items() if key.startswith(prefix)}


def _status(word: str) -> Any:
    from mlflow.entities import RunStatus

    return RunStatus.from_string(word)


def _tell_once() -> None:
    if not _told:
        _told.add("fallback")
        _logger.warning(
            "this workspace has no logged models, which MLflow 3 would make: each model is kept as a folder of its "
            "run's artifacts, as MLflow 2 does, and search_logged_models finds none"
        )
