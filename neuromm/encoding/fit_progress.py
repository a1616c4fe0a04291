"""What a long computation starts with and tells: its seed, and the fits it has done."""

from collections.abc import Callable

import numpy as np

__all__ = ["drawn_seed", "ticker"]


def drawn_seed(rng: int | np.random.Generator | None) -> int:
    """Seed of an argument ``rng``, drawn where there is none."""
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**63))
    if rng is None:
        return int(np.random.default_rng().integers(2**63))
    return int(rng)


def ticker(
    progress: Callable[[int, int], None] | None, total: int
) -> Callable[[], None]:
    """Function that counts finished fits and tells ``progress``."""
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return tick
