"""What is logged at once, in as many requests as a workspace's limits ask for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TypeVar

from mlflow.entities import Metric, Param, RunTag

T = TypeVar("T")

_VALUES_OF_ONE = 250
"""Values of one metric in one request (mlflow#11462)."""
_VALUES = 1000
_OTHERS = 100
"""MLflow's own limits of one request, for metrics, and for each of parameters and tags."""


def requests_of(
    metrics: Iterable[Metric], params: Iterable[Param], tags: Iterable[RunTag]
) -> Iterator[tuple[Sequence[Metric], Sequence[Param], Sequence[RunTag]]]:
    """What each request brings, in order; none for nothing."""
    yield from zip_longest(_of_metrics(metrics), _pieces(params, _OTHERS), _pieces(tags, _OTHERS), fillvalue=())


def _of_metrics(metrics: Iterable[Metric]) -> Iterator[Sequence[Metric]]:
    """Each metric's values in their order, so many of one in one request at most."""
    portions: dict[int, list[Metric]] = defaultdict(list)
    seen: dict[str, int] = defaultdict(int)
    for one in metrics:
        portions[seen[one.key] // _VALUES_OF_ONE].append(one)
        seen[one.key] += 1
    for number in sorted(portions):
        yield from _pieces(portions[number], _VALUES)


def _pieces(items: Iterable[T], size: int) -> Iterator[Sequence[T]]:
    listed = list(items)
    for start in range(0, len(listed), size):
        yield listed[start : start + size]
