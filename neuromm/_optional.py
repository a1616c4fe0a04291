"""Optional packages, with the line that installs them."""

import importlib
from types import ModuleType

__all__ = ["require"]


def require(module: str, *, extra: str) -> ModuleType:
    """Import a module that only an extra brings.

    Parameters
    ----------
    module : str
        Name to import, such as ``"openslide"``.
    extra : str
        The extra of neuromm that installs it.

    Raises
    ------
    ImportError
        With the pip line. Also when the module is installed and fails on import in
        whatever way: a torchvision that does not match its torch raises RuntimeError.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise ImportError(
            f"{module} is needed here and does not import "
            f"({type(error).__name__}: {error}). Install it with: "
            f'pip install "neuromm[{extra}]"'
        ) from error
