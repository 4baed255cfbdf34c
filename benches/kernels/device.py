"""Compiles kernels as the program does and calls them on torch's tensors; measures errors and times."""

import pathlib
import tempfile

import cupy
import numpy
import torch
from cuda.bindings import nvrtc

SOURCES = pathlib.Path(__file__).parents[2] / "src/model/cuda/kernels"
BYTES = 4.3e12  # bytes/s that a copy moves on an H200, read and written
FLOPS = 790e12  # bf16 operations/s of a large product there
BF16, F32 = torch.bfloat16, torch.float32
SUFFIX = {BF16: "bf16", F32: "f32"}
COUNT = numpy.int64
SEED = numpy.uint64
TILES = {"attend.cu": ["attend_tiles.cuh"], "attend_hopper.cu": ["hopper_tiles.cuh"]}  # what stands before a file
HOPPER = torch.cuda.get_device_capability() == (9, 0)
ARCHITECTURE = "sm_%d%d" % torch.cuda.get_device_capability() + "a" * HOPPER
BINARIES = tempfile.TemporaryDirectory()
failures = []


def compiled(source, file, options):
    """The machine code, by the same compiler and options as the program's."""
    _, program = nvrtc.nvrtcCreateProgram(source.encode(), file.encode(), 0, [], [])
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        _, size = nvrtc.nvrtcGetProgramLogSize(program)
        log = b" " * size
        nvrtc.nvrtcGetProgramLog(program, log)
        raise RuntimeError(log.decode())
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    code = b" " * size
    nvrtc.nvrtcGetCUBIN(program, code)
    return code


class Kernels:
    """The kernels of one file under some defines."""

    cache = {}

    def __new__(cls, file, **defines):
        key = (file, tuple(sorted(defines.items())))
        if key not in cls.cache:
            cls.cache[key] = super().__new__(cls)
            cls.cache[key].load(file, defines)
        return cls.cache[key]

    def load(self, file, defines):
        parts = ["common.cuh", *TILES.get(file, []), file]
        source = "\n".join((SOURCES / part).read_text() for part in parts)
        options = [f"--gpu-architecture={ARCHITECTURE}", "--std=c++17", "-default-device"]
        options += [f"-D{k}={v}" for k, v in defines.items()]
        path = pathlib.Path(BINARIES.name) / f"{len(self.cache)}.cubin"  # read when a function is first asked for
        path.write_bytes(compiled(source, file, options))
        self.module = cupy.RawModule(path=str(path))
        self.functions = {}

    def numbers(self, name, count):
        """The integers of a constant."""
        pointer = self.module.get_global(name)
        return cupy.ndarray((count,), cupy.int32, pointer).get().tolist()

    def __call__(self, name, grid, block, *args, shared=0):
        function = self.functions.get(name)
        if function is None:
            function = self.functions[name] = self.module.get_function(name)
            if shared > 48 * 1024:
                function.max_dynamic_shared_size_bytes = shared
            if function.local_size_bytes:
                print(f"  note: {name} keeps {function.local_size_bytes} bytes a thread in memory ({function.num_regs} registers)")
        grid = tuple(grid) if isinstance(grid, (tuple, list)) else (grid,)
        block = tuple(block) if isinstance(block, (tuple, list)) else (block,)
        stream = cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)
        with stream:
            function(grid, block, tuple(argument(a) for a in args), shared_mem=shared)


def argument(a):
    if a is None:
        return numpy.uint64(0)
    if isinstance(a, torch.Tensor):
        return numpy.uint64(a.data_ptr())
    if isinstance(a, bool) or isinstance(a, int):
        return numpy.int32(a)
    if isinstance(a, float):
        return numpy.float32(a)
    return a


def ceil(a, b):
    return (a + b - 1) // b


def random(*shape, dtype=F32, scale=1.0):
    return (torch.randn(*shape, device="cuda") * scale).to(dtype)


def poison(*shape, dtype=F32):
    """Memory in which every number that nobody writes shows."""
    if dtype in (torch.int32, torch.int64):
        return torch.full(shape, -7777, device="cuda", dtype=dtype)
    return torch.full(shape, float("nan"), device="cuda", dtype=dtype)


def error(found, expected):
    found, expected = found.double(), expected.double()
    return ((found - expected).norm() / expected.norm().clamp_min(1e-30)).item()


def check(name, found, expected, limit):
    """Compares by the norm of the difference over that of what is expected."""
    wrong = error(found, expected)
    good = wrong <= limit  # not for NaN
    if not good:
        failures.append(name)
    print(f"  {'ok  ' if good else 'FAIL'} {name:58s} error {wrong:.1e} (at most {limit:.0e})", flush=True)


def expect(name, good, note=""):
    if not good:
        failures.append(name)
    print(f"  {'ok  ' if good else 'FAIL'} {name:58s} {note}", flush=True)


def seconds(call, launches=10, replays=5):
    """The median time of a call, from replays of a graph of several."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(launches):
            call()
    return time_replays(graph.replay, launches, replays)


def seconds_plain(call, launches=5, replays=5):
    """The same without a graph, for calls that cannot be captured."""

    def several():
        for _ in range(launches):
            call()

    several()
    return time_replays(several, launches, replays)


def time_replays(call, launches, replays):
    call()
    times = []
    for _ in range(replays):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / launches / 1e3)
    return sorted(times)[len(times) // 2]


def report(name, ours, theirs=None, bytes=0, flops=0, rate=FLOPS):
    """One line of figures: our time, its floor and what share of it we reach, torch's time."""
    floor = max(bytes / BYTES, flops / rate)
    line = f"  {name:50s} {ours * 1e6:9.1f} us  floor {floor * 1e6:8.1f} us ({floor / ours * 100:3.0f} %)"
    if theirs:
        line += f"  torch {theirs * 1e6:9.1f} us ({theirs / ours:.2f} x)"
    print(line, flush=True)
