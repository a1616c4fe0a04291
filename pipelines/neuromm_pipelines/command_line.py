"""What the commands share: flags, exit codes, signals and progress."""

import argparse
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from neuromm.core.errors import NeurommError, ResourceLimitError, UsageError

__all__ = [
    "RESEARCH_USE",
    "QuietAliases",
    "Terminated",
    "add_device",
    "add_flag",
    "guarded",
    "named_paths",
    "settings_of",
    "start_logging",
    "stop_on_termination",
]

Config = TypeVar("Config")

RESEARCH_USE = (
    "Research use only: not a medical device, not for diagnosis or treatment."
)

_INTERRUPTED = 130
_INTERNAL = 70


def add_flag(
    parser: argparse._ActionsContainer,
    *names: str,
    help: str,
    type: Callable[[str], object] = str,
    default: object = None,
    nargs: str | int | None = None,
    choices: Sequence[str] | None = None,
    metavar: str | tuple[str, ...] | None = None,
    switch: bool = False,
) -> None:
    """Add a flag together with its underscore alias (``--participant_label``).

    Parameters
    ----------
    parser : argparse parser or group
    *names : str
        Spellings; the first long one names the attribute.
    help, type, default, nargs, choices, metavar
        As in argparse.
    switch : bool
        True for a flag that takes no value.
    """
    longs = [name for name in names if name.startswith("--")]
    aliases = [f"--{name[2:].replace('-', '_')}" for name in longs if "-" in name[2:]]
    spellings = [*names, *aliases]
    # Help shows the spellings a user would type; aliases work and stay out of sight.
    dest = longs[0][2:].replace("-", "_")
    if switch:
        parser.add_argument(*spellings, dest=dest, action="store_true", help=help)
    else:
        parser.add_argument(
            *spellings,
            dest=dest,
            help=help,
            type=type,
            default=default,
            nargs=nargs,
            choices=choices,
            metavar=metavar,
        )


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add ``--device`` and ``--nthreads``, of commands that run networks."""
    add_flag(parser, "--device", default="auto", metavar="DEVICE",
             help="auto, cpu or cuda[:N] (auto)")  # fmt: skip
    add_flag(parser, "--nthreads", type=int, metavar="N", help="threads of torch")


def settings_of(
    config_type: type[Config], args: argparse.Namespace, command_line: str
) -> Config:
    """Settings of a job from its parsed command line; lists become tuples."""
    known = {field.name for field in fields(config_type)}  # type: ignore[arg-type]
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(args).items()
        if name in known
    }
    make: Callable[..., Config] = config_type
    return make(**given, command_line=command_line)


class Terminated(BaseException):
    """SIGTERM came; no error of a unit, so no handler of units may catch it."""


class QuietAliases(argparse.RawDescriptionHelpFormatter):
    """Help that leaves out the underscore spellings."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        shown = [name for name in action.option_strings if "_" not in name]
        text = ", ".join(shown)
        if action.nargs == 0:
            return text
        metavar = self._get_default_metavar_for_optional(action)
        return f"{text} {self._format_args(action, metavar)}"


def named_paths(flag: str, values: Sequence[str] | None) -> dict[str, Path]:
    """Read ``NAME=PATH …``; a bare path is named after its file or folder.

    Raises
    ------
    UsageError
        If two have the same name, or a name is empty.
    """
    paths: dict[str, Path] = {}
    for value in values or ():
        name, equals, path = value.partition("=")
        if not equals:
            name, path = Path(value).name.partition(".")[0], value
        if not name or not path:
            raise UsageError(f"{flag} takes NAME=PATH, got {value!r}")
        if name in paths:
            raise UsageError(
                f"{flag} names {name!r} twice: {paths[name]} and {path}. Give each a "
                f"name of its own: {flag} first=… second=…"
            )
        paths[name] = Path(path)
    return paths


def guarded(
    program: str, run: Callable[[Sequence[str]], int], argv: Sequence[str]
) -> int:
    """Run a command; turn whatever goes wrong into one message and an exit code."""
    try:
        with stop_on_termination():
            return run(argv)
    except NeurommError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return error.exit_code
    except Terminated:
        print(
            f"{program}: stopped by SIGTERM; finished units are kept, run again to go "
            "on",
            file=sys.stderr,
        )
        return ResourceLimitError.exit_code
    except KeyboardInterrupt:
        print(f"{program}: interrupted; run again to go on", file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:
        traceback.print_exc()
        print(
            f"{program}: internal error: {type(error).__name__}: {error}. Please "
            "report it with the lines above.",
            file=sys.stderr,
        )
        return _INTERNAL


@contextmanager
def stop_on_termination() -> Iterator[None]:
    """Turn SIGTERM (a scheduler's pre-emption) into `Terminated`, exit code 75."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def start_logging(verbosity: int) -> None:
    """Log to standard error: warnings, with ``-v`` progress, with ``-vv`` all."""
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    logging.basicConfig(
        level=level, format="%(levelname)s %(name)s: %(message)s", force=True
    )
