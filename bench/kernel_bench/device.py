"""The GPU of a run: its clock, its copy rate, and what it is called."""

import statistics

# A copy of so many bytes passes by every cache.
_COPIED_BYTES = 2**30
_COPIES = 20


class Gpu:
    """A GPU under torch or CuPy."""

    share_of_time = 1.0

    def __init__(self, library):
        import cupy

        self.library, self.where = library, "cuda:0"
        self._cupy = cupy
        attributes = cupy.cuda.Device(0).attributes
        self._flushed = self._empty(2 * int(attributes["L2CacheSize"]))
        self._copy_rate = None

    def facts(self):
        """What a measurement needs to be repeated."""
        import platform

        cupy = self._cupy
        properties = cupy.cuda.runtime.getDeviceProperties(0)
        found = {
            "gpu": properties["name"].decode(),
            "memory_bytes": int(properties["totalGlobalMem"]),
            "capability": str(cupy.cuda.Device(0).compute_capability),
            "driver": cupy.cuda.runtime.driverGetVersion(),
            "nvrtc": ".".join(map(str, cupy.cuda.nvrtc.getVersion())),
            "cupy": cupy.__version__,
            "python": platform.python_version(),
            "copy_bytes_per_s": self.copy_rate(),
        }
        if self.library == "torch":
            import torch

            found |= {"torch": torch.__version__, "cuda": torch.version.cuda}
        return found

    def copy_rate(self):
        """Bytes a second, read and written, of a large copy: the ceiling."""
        if self._copy_rate is None:
            half = _COPIED_BYTES // 2
            source, target = self._empty(half), self._empty(half)
            source[:] = 1

            def copy():
                target[:] = source

            runs = [self.clocked(copy) for _ in range(_COPIES)]
            self._copy_rate = 2 * half / (statistics.median(runs[3:]) * 1e-3)
        return self._copy_rate

    def flush(self):
        """Leave nothing of the inputs in the L2 cache."""
        self._flushed[:] = 0

    def clocked(self, work):
        """Milliseconds of the GPU from the start of ``work`` to its end."""
        if self.library == "cupy":
            start, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
            start.record()
            work()
            end.record()
            end.synchronize()
            return self._cupy.cuda.get_elapsed_time(start, end)
        import torch

        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def peak_bytes(self, work):
        """Memory that ``work`` takes beyond what is there; None under CuPy."""
        if self.library == "cupy":
            return None
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        made = work()
        self.synchronize()
        del made
        return torch.cuda.max_memory_allocated() - before

    def synchronize(self):
        self._cupy.cuda.Device(0).synchronize()

    def _empty(self, n_bytes):
        if self.library == "cupy":
            return self._cupy.empty(n_bytes // 4, dtype="float32")
        import torch

        return torch.empty(n_bytes // 4, device=self.where)


def missing():
    """Why no kernel can run here, in words; empty where one can."""
    from neuromm.kernels.gpu_loader import has_cupy, has_gpu

    if has_gpu():
        return ""
    if not has_cupy() and default_library() == "torch":
        return 'CuPy: not installed (pip install "neuromm[gpu13]")'
    return "GPU: not present"


def default_library():
    """torch where it sees the GPU, else CuPy."""
    try:
        import torch
    except ImportError:
        return "cupy"
    return "torch" if torch.cuda.is_available() else "cupy"
