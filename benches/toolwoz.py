#!/usr/bin/env python3
"""Measures conversion, API calls and simulation, the first two against the reference, side by side in one run.

usage: toolwoz.py THRESH PACKAGE [--calls PROGRAM] [--parts conversion,synthetic,real,calls] [--sizes 10000,100000]
                  [--folder DIR]

PACKAGE is the folder of the unpacked Python package josh-train 0.1.4 (MIT): its data, and its code as the reference. Nothing
is installed: python3 must find pandas, numpy, python-dotenv and colorama (PYTHONPATH is passed on). PROGRAM is the compiled
bench `api_calls`; where it is not given, `cargo bench --bench api_calls` is asked for it.

CPU seconds are user and system time of whole process trees, as the kernel counts them; peak memory is the resident set of
the largest process.
"""

import argparse
import collections
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
VECTORS = HERE.parent / "tests" / "golden" / "api_vectors.jsonl"

REAL = """name: real
stages:
  corpus:
    kind: command.run
    with:
      command: "mkdir {out.corpus} && cp -rL {project}/corpus/. {out.corpus}/"
      files: [corpus]
      outputs: {corpus: {path: corpus, type: files/v1}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}, with: {compat: COMPAT}}
  episodes:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule}, tasks: {}, compat: COMPAT, seed: 20}
"""

SYNTHETIC = """name: synthetic
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: SIZE, seed: 3}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  episodes:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule}, tasks: {}, seed: 20}
  scores:
    kind: eval.toolwoz
    in: {episodes: episodes.episodes, tasks: toolwoz.tasks, world: toolwoz.world}
    with: {samples: 1000}
"""


class Run:
    """A finished command: CPU and wall seconds, peak memory in megabytes, what it printed."""

    def __init__(self, arguments, folder, one_core=False):
        if one_core:
            arguments = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *arguments]
        self.begin = time.monotonic()
        child = subprocess.Popen([str(part) for part in arguments], cwd=folder, stdout=subprocess.PIPE)
        self.text = child.stdout.read().decode()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        self.wall = time.monotonic() - self.begin
        self.cpu = usage.ru_utime + usage.ru_stime
        self.peak = usage.ru_maxrss * 1024 / 1e6
        if child.returncode != 0:
            sys.exit(f"`{' '.join(map(str, arguments))}` failed")


class Bench:
    def __init__(self, thresh, package, calls, folder):
        self.thresh, self.package, self.calls = Path(thresh).resolve(), Path(package).resolve(), calls
        self.folder = folder
        self.differs = False
        self.rows = []

    def row(self, figure, goal, reference, ours, ratio):
        self.rows.append((figure, goal, reference, ours, ratio))
        print(f"{figure}: reference {reference}, thresh {ours}, {ratio} (goal {goal})", flush=True)

    def project(self, name, text):
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "thresh.toml").write_text("")
        (folder / "p.yaml").write_text(text)
        return folder

    def run(self, folder, upto):
        """Computes one stage; those before it have their results."""
        return Run([self.thresh, "run", "--json", "p.yaml", "--upto", upto], folder, one_core=True)

    def real(self, compat):
        """A project on the real corpus whose files lie in the store."""
        folder = self.project(f"real-{compat}", REAL.replace("COMPAT", compat))
        corpus = folder / "corpus"
        corpus.mkdir()
        names = ["data/dataset.zip", "data/valListFile.json", "data/testListFile.json"]
        names += [f"db/{domain}_db.json" for domain in ("restaurant", "hotel", "attraction", "train")]
        for name in names:
            shutil.copy(self.package / name, corpus)
        self.run(folder, "corpus")
        return folder

    def reference(self, part, *arguments):
        """Runs a part of the reference in a process of its own, in a folder laid out as its code wants it."""
        folder = self.folder / "reference"
        if not (folder / "data" / "delex.json").exists():
            (folder / "data").mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(self.package / "data" / "dataset.zip") as archive:
                for name in archive.namelist():
                    if Path(name).name in ("data.json", "delex.json"):
                        with archive.open(name) as source, open(folder / "data" / Path(name).name, "wb") as copy:
                            shutil.copyfileobj(source, copy)
            shutil.copy(self.package / "data" / "valid_api_defs.json", folder / "data")
            shutil.copytree(self.package / "db", folder / "db", dirs_exist_ok=True)
        ran = Run([sys.executable, __file__, "--as-reference", part, self.package, *arguments], folder, one_core=True)
        return ran, json.loads(ran.text.splitlines()[-1])

    def conversion(self):
        """The whole corpus: reading and conversion. The reference reads unpacked files, thresh the archive."""
        ran, inside = self.reference("conversion", "apis.json")
        folder = self.real("repo-head")
        ours = self.run(folder, "toolwoz")
        self.row(
            "conversion of the whole corpus, CPU s",
            "20 times faster",
            f"{inside['cpu']:.1f} (without imports)",
            f"{ours.cpu:.2f} (whole process)",
            f"{inside['cpu'] / ours.cpu:.0f} times",
        )
        self.row("the same, wall s", "", f"{inside['wall']:.1f}", f"{ours.wall:.2f}", f"{inside['wall'] / ours.wall:.0f} times")
        self.row("the same, peak MB", "600", f"{ran.peak:.0f}", f"{ours.peak:.0f}", f"{ran.peak / ours.peak:.0f} times less")
        return folder

    def api_calls(self, count=600):
        """The same calls on both sides: recorded ones, and ones made from goals."""
        apis = self.folder / "reference" / "apis.json"
        folder = self.folder / "real-repo-head"
        if not apis.exists() or not folder.exists():
            self.conversion()
        path = folder / "calls.jsonl"
        with open(path, "w") as file:
            recorded = [call for call in map(json.loads, open(VECTORS)) if call["exception"] is None]
            for call in [*recorded, *made(json.loads(apis.read_text()), count)]:
                file.write(json.dumps({key: call[key] for key in ("dialogue", "api", "args")}) + "\n")
        _, inside = self.reference("calls", "apis.json", path)
        tables = [Run([self.thresh, "path", "p.yaml", f"toolwoz.{port}"], folder).text.strip() for port in ("tasks", "world")]
        ours = json.loads(Run([self.program(), *tables, path, "repo-head"], folder, one_core=True).text)
        groups = collections.defaultdict(list)
        for line, theirs, mine in zip(open(path), inside["nanos"], ours["nanos"], strict=True):
            groups["every call"].append((theirs, mine))
            groups[kind(json.loads(line))].append((theirs, mine))
        for name, pairs in groups.items():
            theirs, mine = (statistics.mean(column) / 1e3 for column in zip(*pairs))
            self.row(f"{name} ({len(pairs)}), CPU us", "1,000 times faster", f"{theirs:,.0f}", f"{mine:.2f}", f"{theirs / mine:,.0f} times")
        same = inside["digest"] == ours["digest"]
        self.differs = not same
        print("what the agent sees is the same to the byte" if same else "THE OBSERVATIONS DIFFER")

    def program(self):
        if self.calls is None:
            command = ["cargo", "bench", "--bench", "api_calls", "--no-run", "--message-format", "json"]
            built = subprocess.run(command, cwd=HERE.parent, check=True, stdout=subprocess.PIPE, text=True).stdout
            found = [json.loads(line) for line in built.splitlines() if '"api_calls"' in line]
            self.calls = next(unit["executable"] for unit in found if unit.get("executable"))
        return Path(self.calls).resolve()

    def simulation(self):
        """The rule agent and the agenda user on all real tasks."""
        folder = self.real("fixed")
        self.run(folder, "toolwoz")
        self.simulated("real tasks", self.run(folder, "episodes"))

    def simulated(self, what, ran):
        stage = finished(ran, "episodes")
        count = stage["figures"]["rows"]
        self.row(f"{what}, dialogues a CPU second", "5,000", "-", f"{count / ran.cpu:,.0f}", f"{ran.cpu:.2f} s CPU")
        self.row(f"{what}, dialogues a second, one core", "5,000", "-", f"{count / stage['seconds']:,.0f}", f"{stage['seconds']:.2f} s")
        self.row(f"{what}, peak MB", "constant", "-", f"{ran.peak:.0f}", f"{count:.0f} dialogues")

    def synthetic(self, sizes):
        peaks = {}
        for size in sizes:
            folder = self.project(f"synthetic-{size}", SYNTHETIC.replace("SIZE", str(size)))
            for stage in ("corpus", "toolwoz", "episodes", "scores"):
                ran = self.run(folder, stage)
                peaks.setdefault(stage, []).append(ran.peak)
                if stage == "episodes":
                    self.simulated(f"{size:,} synthetic tasks", ran)
                else:
                    took = f"{ran.cpu:.1f} s CPU"
                    self.row(f"{size:,} synthetic tasks, `{stage}`, peak MB", "constant", "-", f"{ran.peak:.0f}", took)
            shutil.rmtree(folder)
        for stage, found in peaks.items():
            text = " -> ".join(f"{peak:.0f}" for peak in found)
            self.row(f"peak MB of `{stage}` over {sizes} tasks", "constant", "-", text, f"{found[-1] / found[0]:.2f}")


def finished(ran, stage):
    events = (json.loads(line) for line in ran.text.splitlines())
    return next(event for event in events if event["event"] == "stage_finished" and event["stage"] == stage)


def made(apis, count):
    """Calls made from goals: whole, in part, with another value."""
    rng = random.Random(1)
    for name in rng.sample(sorted(apis), count):
        goals = [(api, goal["parameters"]) for domain in apis[name].values() for api, goal in domain["success"].items()]
        api, wanted = rng.choice(goals)
        args = {key: value for key, value in wanted.items() if isinstance(value, str) and value and rng.random() < 0.8}
        yield {"dialogue": name, "api": api, "args": args}


def kind(call):
    if call["api"] == "search_train":
        bounds = {key for key, value in call["args"].items() if value}
        return "unfiltered train search" if not bounds else "train search"
    return re.sub(r"_.*", "", call["api"]) + (" (not trains)" if call["api"].startswith("search") else "")


def as_reference(part, package, *arguments):
    """The reference's own functions, timed; runs in a process of its own."""
    import hashlib
    import types

    sys.path.insert(0, str(package))
    # Imported by the package, and not needed for what is measured.
    for name in ("tiktoken", "pandasql"):
        sys.modules.setdefault(name, types.ModuleType(name))
    import josh_train.utils as utils

    if part == "conversion":
        cpu, wall = time.process_time(), time.perf_counter()
        apis = utils.create_apis(utils.create_dbs())
        report = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        Path(arguments[0]).write_text(json.dumps(apis))
        print(json.dumps(report))
        return
    from josh_train.conversation_types import conversation_state as state

    apis = json.loads(Path(arguments[0]).read_text())
    shared = utils.create_dbs()
    # A conversation reads the databases anew: that is no part of a call.
    state.create_dbs = lambda: shared
    state.filter_dbs = lambda *_: None
    nanos, seen = [], hashlib.sha256()
    for line in open(arguments[1]):
        call = json.loads(line)
        conversation = state.Conversation(call["dialogue"], apis, {call["dialogue"]: {"goal": {}, "log": []}})
        began = time.thread_time_ns()
        try:
            answer = utils.handle_api_calls(call["api"], call["args"], conversation)
        except Exception:
            answer = None
        nanos.append(time.thread_time_ns() - began)
        seen.update(json.dumps(answer).encode() + b"\n")
    print()
    print(json.dumps({"nanos": nanos, "digest": seen.hexdigest()}))


def main():
    if sys.argv[1:2] == ["--as-reference"]:
        return as_reference(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("thresh")
    parser.add_argument("package")
    parser.add_argument("--calls", help="the compiled bench `api_calls`")
    # The kernel hands a process the peak of the one that starts it: the part that fills this one comes last.
    parser.add_argument("--parts", default="conversion,synthetic,real,calls")
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--folder", default="target/bench-toolwoz", type=Path)
    arguments = parser.parse_args()
    bench = Bench(arguments.thresh, arguments.package, arguments.calls, arguments.folder.resolve())
    parts = {
        "conversion": bench.conversion,
        "calls": bench.api_calls,
        "real": bench.simulation,
        "synthetic": lambda: bench.synthetic([int(size) for size in arguments.sizes.split(",")]),
    }
    for part in arguments.parts.split(","):
        parts[part]()
    print("\n| figure | goal | reference | thresh | ratio |\n|---|---|---|---|---|")
    for row in bench.rows:
        print("| " + " | ".join(row) + " |")
    if bench.differs:
        sys.exit("the observations differ: these figures compare nothing")


if __name__ == "__main__":
    main()
