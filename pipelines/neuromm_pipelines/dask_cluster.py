"""Tasks on the workers of a Dask cluster."""

import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from neuromm._optional import require
from neuromm.core import UsageError
from neuromm_pipelines.chunk_tasks import forget_prepared

__all__ = ["dask_workers"]

logger = logging.getLogger(__name__)

_ANSWER_WITHIN_S = 30


@contextmanager
def dask_workers(scheduler: str) -> Iterator[Executor]:
    """Connect to a scheduler; its workers as an executor of `concurrent.futures`.

    Tasks that have not begun are cancelled when the block ends early. A task whose
    worker dies is given to another one; after four deaths Dask gives it up.

    Parameters
    ----------
    scheduler : str
        ``"tcp://host:8786"``, or the path of a scheduler file.

    Raises
    ------
    neuromm.core.UsageError
        If Dask is not installed, or no scheduler answers.
    """
    try:
        distributed = require("distributed", extra="cluster")
    except ImportError as error:
        raise UsageError(f"--executor dask: {error}") from error
    client = _client(distributed, scheduler)
    if not client.scheduler_info()["workers"]:
        logger.warning("the cluster at %s has no worker yet: waiting", scheduler)
    executor = client.get_executor(pure=False)
    try:
        yield executor
        client.run(forget_prepared, on_error="ignore")  # workers may live on for others
    except BaseException:
        executor.shutdown(wait=False)
        raise
    finally:
        client.close()


def _client(distributed: ModuleType, scheduler: str) -> Any:
    """Connect, or say what was expected at the address."""
    cure = (
        "Give the address of a running scheduler (tcp://host:8786) or its scheduler "
        "file; with dask-jobqueue it is cluster.scheduler_address."
    )
    where = {"address": scheduler}
    if "://" not in scheduler:
        if not Path(scheduler).is_file():
            raise UsageError(
                f"--scheduler {scheduler} is neither an address such as "
                f"tcp://host:8786 nor a scheduler file that exists. {cure}"
            )
        where = {"scheduler_file": scheduler}
    try:
        return distributed.Client(**where, timeout=_ANSWER_WITHIN_S)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"no Dask scheduler answers at {scheduler} within {_ANSWER_WITHIN_S} s "
            f"({error}). {cure}"
        ) from error
