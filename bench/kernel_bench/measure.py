"""Check a kernel against its plain version, then time both."""

import statistics
import time

from kernel_bench.case import Draw, in_double
from neuromm.kernels.arrays import namespace

_WARM_UP = 3
_LEAST, _FEWEST = 20, 3
# Of all repeats: at least, and at most where one of them is long.
_SECONDS, _MOST_SECONDS = 1.0, 8.0


def measured(case, device, sizes=None):
    """One row of the table; what does not fit into the memory says so."""
    sizes = case.sizes if sizes is None else sizes
    row = {
        "kernel": case.name, "sources": case.sources, "library": device.library,
        "title": case.what.format(**sizes), "sizes": sizes,
    }  # fmt: skip
    try:
        inputs = case.make(Draw(device.library, device.where), **sizes)
        row |= errors(case, inputs)
        for version in ("kernel", "plain"):
            work = getattr(case, version)
            row |= {
                f"{version}_{name}": value
                for name, value in timed(lambda w=work: w(**inputs), device).items()
            }
    except Exception as error:
        if "OutOfMemory" not in type(error).__name__:
            raise
        return row | {"failed": "out of memory"}
    if case.traffic is None:
        return row
    n_bytes = case.traffic(**sizes)
    rate = n_bytes / (row["kernel_ms"] * 1e-3)
    share = rate / device.copy_rate()
    return row | {"bytes": n_bytes, "bytes_per_s": rate, "share": share}


def errors(case, inputs):
    """Largest errors, relative to the largest value, of both; and what is allowed."""
    exact = _seen(case, case.plain, in_double(inputs))
    of_plain = _worst(_seen(case, case.plain, inputs), exact)
    of_kernel = _worst(_seen(case, case.kernel, inputs), exact)
    # A kernel may err twice as much as plain arithmetic, result by result.
    right = all(
        fast <= max(2 * plain, case.floor)
        for fast, plain in zip(of_kernel, of_plain, strict=True)
    )
    return {
        "kernel_error": max(of_kernel), "plain_error": max(of_plain), "right": right,
    }  # fmt: skip


def timed(work, device):
    """Median, 10th and 90th percentile in ms, seconds of the first call, memory."""
    started = time.perf_counter()
    _done(work, device)
    first_s = time.perf_counter() - started
    extra_bytes = device.peak_bytes(work)
    runs, started = [], time.perf_counter()
    for number in range(10_000):
        used = time.perf_counter() - started
        if number >= _LEAST + _WARM_UP and used > device.share_of_time * _SECONDS:
            break
        if number >= _FEWEST + _WARM_UP and used > device.share_of_time * _MOST_SECONDS:
            break
        device.flush()
        runs.append(device.clocked(work))
    runs = sorted(runs[_WARM_UP:])
    return {
        "ms": statistics.median(runs), "low_ms": runs[len(runs) // 10],
        "high_ms": runs[-1 - len(runs) // 10], "repeats": len(runs),
        "first_s": first_s, "extra_bytes": extra_bytes,
    }  # fmt: skip


def _done(work, device):
    work()
    device.synchronize()


def _seen(case, version, inputs):
    """What is compared of the results of a version."""
    given = _kept(case, inputs)
    return case.seen(inputs, *version(**given))


def _kept(case, inputs):
    """Inputs, with copies of those that are changed in place."""
    copies = {name: namespace(inputs[name]).asarray(inputs[name], copy=True)
              for name in case.changed}  # fmt: skip
    return inputs | copies


def _worst(found, exact):
    """Error of each result: nan and infinities count as infinite."""
    worst = []
    for one, right in zip(found, exact, strict=True):
        xp = namespace(one)
        if tuple(one.shape) != tuple(right.shape):
            worst.append(float("inf"))
            continue
        one, right = (xp.astype(x, xp.float64, copy=False) for x in (one, right))
        scale = float(xp.max(xp.abs(right))) or 1.0
        error = float(xp.max(xp.abs(one - right))) / scale
        worst.append(error if error == error else float("inf"))
    return worst
