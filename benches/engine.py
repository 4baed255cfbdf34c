#!/usr/bin/env python3
"""Measures the engine against ninja, DVC and Snakemake on the same pipelines, side by side in one run.

usage: engine.py THRESH [--peers ninja,dvc,snakemake] [--slow] [--runs N] [--folder DIR]

Figures are CPU seconds of whole process trees (user and system, as the kernel counts them for children that were waited
for), medians of several runs in turn. The peers are installed with pip into DIR/peers; `--peers ''` measures thresh alone.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import synthetic

VERSIONS = {"ninja": "1.13.0", "dvc": "3.67.1", "snakemake": "9.27.0"}
GIB = 1 << 30

# One stage that copies in.bin to out.bin, for each tool.
LARGE = {
    "thresh": {
        "pipeline.yaml": """name: large
stages:
  copy:
    kind: command.run
    with:
      command: [cp, "{project}/in.bin", "{out.o}"]
      files: [in.bin]
      outputs: {o: {path: out.bin}}
""",
        "thresh.toml": "",
    },
    "ninja": {"build.ninja": "rule c\n  command = cp $in $out\nbuild out.bin: c in.bin\n"},
    "dvc": {"dvc.yaml": "stages:\n  copy:\n    cmd: cp in.bin out.bin\n    deps: [in.bin]\n    outs: [out.bin]\n"},
    "snakemake": {
        "Snakefile": "rule all:\n    input: 'out.bin'\n"
        "rule copy:\n    input: 'in.bin'\n    output: 'out.bin'\n    shell: 'cp {input} {output}'\n"
    },
}


def cpu(arguments, folder):
    """CPU seconds and wall seconds of a command and all that it waits for, and whether it succeeded."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "NO_COLOR": "1"}
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(arguments, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - begin
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, wall, done.returncode == 0


class Bench:
    def __init__(self, thresh, peers, runs, folder):
        self.thresh, self.runs, self.folder = str(Path(thresh).resolve()), runs, folder
        self.tools = {"thresh": [self.thresh, "run", "pipeline.yaml"]}
        for peer in peers:
            self.tools[peer] = self.install(peer)

    def install(self, peer):
        home = self.folder / "peers" / peer
        if not (home / "bin" / peer).exists():
            print(f"installing {peer} {VERSIONS[peer]} …", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", home], check=True)
            subprocess.run([home / "bin" / "pip", "install", "-q", f"{peer}=={VERSIONS[peer]}"], check=True)
        program = str(home / "bin" / peer)
        return {
            "ninja": [program],
            "dvc": [program, "repro"],
            "snakemake": [program, "--cores", "2", "--quiet", "all"],
        }[peer]

    def project(self, tool, shape, count):
        """A fresh pipeline for a tool."""
        folder = self.folder / f"{tool}-{shape}-{count}"
        shutil.rmtree(folder, ignore_errors=True)
        synthetic.write(tool, shape, count, folder)
        self.prepare(tool, folder)
        return folder

    def prepare(self, tool, folder):
        if tool == "dvc":
            subprocess.run([self.tools["dvc"][0], "init", "--no-scm", "-q"], cwd=folder, check=True)

    def report(self, title, unit, figures):
        """Prints one line of figures: tool to value, or to a text where there is none."""
        ours = figures.get("thresh")
        print(f"\n{title} ({unit})")
        for tool, value in figures.items():
            if isinstance(value, str):
                print(f"  {tool:22} {value}")
                continue
            numbers = isinstance(ours, float) and tool != "thresh" and ours > 0
            ratio = f"   {value / ours:8.2f} x thresh" if numbers else ""
            print(f"  {tool:22} {value:10.4f}{ratio}")
        sys.stdout.flush()

    def no_op(self, count, tools):
        """CPU seconds of a run in which everything is there already."""
        figures, folders = {}, {}
        for tool in tools:
            folders[tool] = self.project(tool, "chain", count)
            seconds, _, ok = cpu(self.tools[tool], folders[tool])
            if not ok:
                figures[tool] = "fails"
        samples = {tool: [] for tool in tools if tool not in figures}
        for turn in range(self.runs):
            for tool in samples:
                # A tool that takes seconds is not measured more often than it takes to see that.
                if turn and max(samples[tool]) > 2:
                    continue
                seconds, _, ok = cpu(self.tools[tool], folders[tool])
                samples[tool].append(seconds if ok else float("nan"))
        figures.update({tool: statistics.median(values) for tool, values in samples.items()})
        ordered = {tool: figures[tool] for tool in tools}
        self.report(f"no-op, {count:,} stages in a chain", "CPU s", ordered)
        return ordered

    def cold(self, count, tools):
        """CPU milliseconds a stage of a run that computes everything, and what the children alone take."""
        figures = {"the children alone": self.children(count)}
        for tool in tools:
            samples = []
            for _ in range(min(self.runs, 3)):
                folder = self.project(tool, "chain", count)
                seconds, _, ok = cpu(self.tools[tool], folder)
                samples.append(seconds / count * 1e3 if ok else float("nan"))
                if seconds > 5:
                    break
            figures[tool] = statistics.median(samples)
        self.report(f"cold run, {count} trivial stages", "CPU ms a stage", figures)
        return figures

    def children(self, count):
        """The stages' commands, started one after the other and nothing else."""
        folder = self.folder / "children"
        shutil.rmtree(folder, ignore_errors=True)
        synthetic.write("ninja", "chain", 1, folder)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for number in range(count):
            command = f"cat {folder}/seed.txt > {folder}/o{number} && echo {number} >> {folder}/o{number}"
            os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", command], os.environ), 0)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / count * 1e3

    def large(self, tools):
        """CPU seconds and disk for one stage that copies a source of 1 GiB, and for a run after `touch` of that source."""
        source = self.folder / "large.bin"
        if not source.exists() or source.stat().st_size != GIB:
            with open(source, "wb") as file:
                for _ in range(GIB >> 20):
                    file.write(os.urandom(1 << 20))
        plain = self.folder / "plain"
        samples = []
        for _ in range(self.runs):
            shutil.rmtree(plain, ignore_errors=True)
            plain.mkdir()
            samples.append(cpu(["cp", source, plain / "out.bin"], plain)[0])
        shutil.rmtree(plain)
        figures, disk, touched = {"cp alone": statistics.median(samples)}, {}, {}
        for tool in tools:
            samples = []
            for _ in range(self.runs if tool in ("thresh", "ninja") else 1):
                folder = self.folder / f"{tool}-large"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                os.link(source, folder / "in.bin")
                for name, text in LARGE[tool].items():
                    (folder / name).write_text(text)
                self.prepare(tool, folder)
                samples.append(cpu(self.tools[tool], folder)[0])
            figures[tool] = statistics.median(samples)
            blocks = int(subprocess.run(["du", "-s", "-B1", folder], capture_output=True, text=True).stdout.split()[0])
            # The source is there in any case.
            disk[tool] = blocks / GIB - 1
            (folder / "in.bin").touch()
            touched[tool] = cpu(self.tools[tool], folder)[0]
            shutil.rmtree(folder)
        self.report("one stage that copies 1 GiB", "CPU s", figures)
        self.report("what it leaves on the disk", "GiB", disk)
        self.report("run again after `touch` of its source", "CPU s", touched)
        source.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("thresh")
    parser.add_argument("--peers", default="ninja,dvc,snakemake")
    parser.add_argument("--slow", action="store_true", help="measure DVC with 1,000 stages as well: half an hour")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", default="target/bench", type=Path)
    arguments = parser.parse_args()
    peers = [peer for peer in arguments.peers.split(",") if peer]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments.thresh, peers, arguments.runs, arguments.folder.resolve())
    tools = ["thresh", *peers]
    fast = [tool for tool in tools if tool in ("thresh", "ninja")]
    bench.no_op(100, tools)
    # DVC takes minutes to compute a thousand stages at all.
    thousand = bench.no_op(1000, [tool for tool in tools if tool != "dvc" or arguments.slow])
    ten = bench.no_op(10_000, fast)
    if isinstance(ten["thresh"], float) and isinstance(thousand["thresh"], float):
        print(f"\n10,000 stages take {ten['thresh'] / thousand['thresh']:.1f} times as long as 1,000")
    bench.cold(100, tools)
    bench.cold(1000, fast)
    bench.large(tools)


if __name__ == "__main__":
    main()
