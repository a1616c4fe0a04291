"""Public names of a package that import their module when they are first used."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Parameters
    ----------
    package : str
        Its ``__name__``.
    homes : mapping of str to str
        Public name to its module, in full or within the package.

    Returns
    -------
    getattr, dir : callables
        A name that is none of ``homes`` raises AttributeError.

    Examples
    --------
    In ``neuromm/metrics/__init__.py``::

        __getattr__, __dir__ = lazy_names(__name__, {"dice": "segmentation"})
    """

    def found(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        whole = home if home.startswith("neuromm.") else f"{package}.{home}"
        value = getattr(import_module(whole), name)
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return found, listed
