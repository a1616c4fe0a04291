"""Flags of a script of jobs, the jobs that a word stands for, and their results."""

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("NEUROMM_TEST_DATA", ROOT.parent / "shared" / "data"))


def job_parser(script, description, *, n_epochs):
    """Flags that each such script has; results lie beside it."""
    parser = argparse.ArgumentParser(prog=script, description=description)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("jobs", nargs="*")
    parser.add_argument("--epochs", type=int, default=n_epochs)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--threads", type=int, default=1)
    results = ROOT / "bench" / script.replace(".py", "_results.json")
    parser.add_argument("--json", type=Path, default=results)
    parser.add_argument("--write-docs", action="store_true")
    return parser


def expanded_jobs(script, jobs, numbers):
    """Name and number of each job; a name alone stands for all of its numbers.

    ``numbers`` names the jobs there are; None for one that has no number.
    """
    for job in jobs:
        name, colon, number = job.partition(":")
        if name not in numbers or (colon and numbers[name] is None):
            raise SystemExit(
                f"{script}: no job {job!r} (there are: {', '.join(numbers)})"
            )
        for one in [int(number)] if number else numbers[name] or [None]:
            yield name, one


def keep_result(args, label, result, packages):
    """Add a result to the file, which other jobs may have changed meanwhile."""
    path = args.json
    stored = json.loads(path.read_text()) if path.exists() else {}
    stored.setdefault("jobs", {})[label] = result
    stored["machine"] = {
        "python": platform.python_version(),
        "threads": args.threads,
        **{name: version(name) for name in packages},
    }
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(stored, indent=1) + "\n")
    os.replace(partial, path)
