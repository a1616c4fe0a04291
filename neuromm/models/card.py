"""What a model is, for whom, and what is known about it."""

from dataclasses import dataclass

__all__ = ["ModelCard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Card of a published model.

    Attributes
    ----------
    name, title : str
    reference : str
        The paper.
    task, inputs, outputs : str
        With shapes and units.
    departures : tuple of str
        Where the defaults differ from the paper or its released code, and why.
    limits : tuple of str
        What the model must not be used for, or is not known to do.
    weights : str
        Whether there are trained weights, and under which licence.
    """

    name: str
    title: str
    reference: str
    task: str
    inputs: str
    outputs: str
    departures: tuple[str, ...]
    limits: tuple[str, ...]
    weights: str
