"""Decompositions side by side, each on one thread, where products use several.

A symmetric eigenproblem spends half its time in products of a matrix and a vector,
which several threads hardly speed up. Several problems at once use them all.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["n_blas_threads", "side_by_side"]

Result = TypeVar("Result")


def n_blas_threads() -> int:
    """Threads of NumPy's products, limits in force included; 1 if it is not known."""
    counts = [library.num_threads for library in _blas().lib_controllers]
    return max(counts, default=1) or 1


def side_by_side(jobs: Sequence[Callable[[], Result]]) -> list[Result]:
    """Results of all jobs at once, whose products take one thread each.

    A single job keeps all threads.
    """
    if len(jobs) == 1:
        return [jobs[0]()]
    with _blas().limit(limits=1), ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(lambda job: job(), jobs))


@functools.cache
def _blas() -> Any:
    import numpy.linalg  # noqa: F401, the library must be there to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
