#!/usr/bin/env python3
"""Writes one synthetic pipeline for several tools, so that they can be compared doing the same work.

usage: synthetic.py TOOL SHAPE N DIR
  TOOL   thresh | ninja | dvc | snakemake
  SHAPE  chain: seed -> s0 -> s1 -> ... -> s(N-1)
         fan:   seed -> s0, and s0 -> each of s1 ... s(N-1)

Every stage reads one file and writes one (`cat IN > OUT && echo I >> OUT`, so all outputs differ). The last stage also reads
leaf.txt: appending a line to leaf.txt reruns the last stage, appending one to seed.txt reruns all.
"""

import json
import sys
from pathlib import Path

TOOLS = ("thresh", "ninja", "dvc", "snakemake")


def stages(shape, count):
    """For each stage its number and the numbers or names of what it reads."""
    for number in range(count):
        if number == 0:
            reads = ["seed.txt"]
        else:
            reads = [number - 1 if shape == "chain" else 0]
        if number == count - 1:
            reads.append("leaf.txt")
        yield number, reads


def output(number):
    return f"out/s{number}.txt"


def paths(reads):
    return [read if isinstance(read, str) else output(read) for read in reads]


def thresh(shape, count):
    lines = [f"name: {shape}", "stages:"]
    for number, reads in stages(shape, count):
        words, files, inputs = [], [], []
        for read in reads:
            if isinstance(read, str):
                files.append(read)
                words.append("{project}/" + read)
            else:
                inputs.append(read)
                words.append("{in.i}/o.txt")
        lines += [f"  s{number}:", "    kind: command.run"]
        if inputs:
            lines.append(f"    in: {{i: s{inputs[0]}.o}}")
        lines.append("    with:")
        command = f"cat {' '.join(words)} > {{out.o}} && echo {number} >> {{out.o}}"
        lines.append(f"      command: {json.dumps(command)}")
        if files:
            lines.append(f"      files: [{', '.join(files)}]")
        lines.append("      outputs: {o: {path: o.txt}}")
    return {"pipeline.yaml": "\n".join(lines) + "\n", "thresh.toml": "# Paths of this project start here.\n"}


def ninja(shape, count):
    lines = ["rule c", "  command = cat $in > $out && echo $i >> $out"]
    for number, reads in stages(shape, count):
        lines += [f"build {output(number)}: c {' '.join(paths(reads))}", f"  i = {number}"]
    return {"build.ninja": "\n".join(lines) + "\n"}


def dvc(shape, count):
    lines = ["stages:"]
    for number, reads in stages(shape, count):
        command = f"cat {' '.join(paths(reads))} > {output(number)} && echo {number} >> {output(number)}"
        lines += [f"  s{number}:", f"    cmd: {command}", "    deps:"]
        lines += [f"    - {path}" for path in paths(reads)]
        lines += ["    outs:", f"    - {output(number)}"]
    return {"dvc.yaml": "\n".join(lines) + "\n"}


def snakemake(shape, count):
    last = [output(count - 1)] if shape == "chain" else [output(number) for number in range(count)]
    lines = ["rule all:", f"    input: {json.dumps(last)}"]
    for number, reads in stages(shape, count):
        lines += [
            f"rule s{number}:",
            f"    input: {json.dumps(paths(reads))}",
            f"    output: {json.dumps(output(number))}",
            f"    shell: {json.dumps(f'cat {{input}} > {{output}} && echo {number} >> {{output}}')}",
        ]
    return {"Snakefile": "\n".join(lines) + "\n"}


def write(tool, shape, count, folder):
    """Writes the pipeline and its two source files."""
    folder = Path(folder)
    (folder if tool == "thresh" else folder / "out").mkdir(parents=True, exist_ok=True)
    files = {"thresh": thresh, "ninja": ninja, "dvc": dvc, "snakemake": snakemake}[tool](shape, count)
    for name, text in {"seed.txt": "seed\n", "leaf.txt": "leaf\n", **files}.items():
        (folder / name).write_text(text)


def main():
    if len(sys.argv) != 5 or sys.argv[1] not in TOOLS or sys.argv[2] not in ("chain", "fan") or not sys.argv[3].isdigit():
        sys.exit(__doc__)
    tool, shape, count, folder = sys.argv[1:]
    if int(count) == 0:
        sys.exit("a pipeline needs at least one stage")
    write(tool, shape, int(count), folder)


if __name__ == "__main__":
    main()
