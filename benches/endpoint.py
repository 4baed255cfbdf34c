#!/usr/bin/env python3
"""Measures dialogues with a served model: how full the limit on calls in flight is kept, and how much memory that takes.

usage: endpoint.py THRESH [--in-flight N] [--tasks N] [--latency SECONDS] [--folder DIR]

A server of its own on 127.0.0.1 answers each call after the latency; the agent is served, the user follows its agenda. Printed
are the calls, calls a second, the mean number in flight over the middle half of the run, as the server sees it, and the peak
of the resident memory of `thresh`. The run fails where a dialogue is broken.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PIPELINE = """name: endpoint
stages:
  corpus: {{kind: multiwoz.synthesize, with: {{dialogues: {dialogues}, domains: [restaurant, hotel], seed: 3}}}}
  toolwoz: {{kind: toolwoz.convert, in: {{corpus: corpus.corpus}}}}
  episodes:
    kind: dialogue.simulate
    in: {{tasks: toolwoz.tasks, world: toolwoz.world}}
    with: {{agent: {{kind: served, model: slow}}, tasks: {{split: train, limit: {tasks}}}, seed: 4}}
"""

SETTINGS = """[endpoints.slow]
url = "http://127.0.0.1:{port}/v1"
in_flight = {in_flight}
"""

BODY = json.dumps(
    {
        "choices": [
            {
                "message": {"role": "assistant", "content": "SPEAK What else would you like? <COMMAND_END>"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1200, "completion_tokens": 9},
    }
).encode()
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


class Calls:
    """What the server saw: calls so far, calls being answered, and samples of those."""

    def __init__(self, latency):
        self.latency, self.total, self.now, self.samples = latency, 0, 0, []

    async def watch(self):
        while True:
            self.samples.append((time.monotonic(), self.now, self.total))
            await asyncio.sleep(0.02)

    def middle(self):
        """Calls, seconds, calls a second and the mean in flight over the middle half of the time in which there were calls."""
        busy = [sample for sample in self.samples if 0 < sample[2] and (sample[1] > 0 or sample[2] < self.total)]
        begin, end = busy[0][0], busy[-1][0]
        inside = [s for s in busy if begin + (end - begin) / 4 <= s[0] <= end - (end - begin) / 4]
        rate = (inside[-1][2] - inside[0][2]) / (inside[-1][0] - inside[0][0])
        return self.total, end - begin, rate, sum(now for _, now, _ in inside) / len(inside)


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection that is kept alive."""

    def __init__(self, calls):
        self.calls, self.received, self.wanted = calls, bytearray(), None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += data
        if self.wanted is None:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.received[:end]).lower()
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            self.wanted = end + 4 + length
        if len(self.received) >= self.wanted:
            del self.received[: self.wanted]
            self.wanted = None
            self.calls.total += 1
            self.calls.now += 1
            asyncio.get_running_loop().call_later(self.calls.latency, self.answer)

    def answer(self):
        self.calls.now -= 1
        if not self.transport.is_closing():
            self.transport.write(REPLY)


def peak(pid):
    """The largest resident set of a process so far, in MiB; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) / 1024 if found else 0.0


async def measure(arguments, folder):
    calls = Calls(arguments.latency)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(calls), "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    # A fifth of the dialogues are no training tasks.
    pipeline = PIPELINE.format(dialogues=arguments.tasks * 3 // 2, tasks=arguments.tasks)
    (folder / "p.yaml").write_text(pipeline)
    (folder / "thresh.toml").write_text(SETTINGS.format(port=port, in_flight=arguments.in_flight))
    thresh = str(Path(arguments.thresh).resolve())
    subprocess.run([thresh, "run", "-q", "--upto", "toolwoz", "p.yaml"], cwd=folder, check=True)
    watching = asyncio.create_task(calls.watch())
    process = await asyncio.create_subprocess_exec(
        thresh, "run", "--json", "p.yaml", cwd=folder, stdout=(folder / "run.jsonl").open("wb")
    )
    most = 0.0
    while process.returncode is None:
        most = max(most, peak(process.pid))
        await asyncio.sleep(0.05)
    watching.cancel()
    server.close()
    return calls, most, process.returncode


def figures(folder):
    """The figures of the simulation."""
    events = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    finished = [e for e in events if e["event"] == "stage_finished" and e["stage"] == "episodes"]
    return finished[0]["figures"] if finished else {}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("thresh")
    parser.add_argument("--in-flight", type=int, default=2000)
    parser.add_argument("--tasks", type=int, default=8000)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="thresh-endpoint-"))
    folder.mkdir(parents=True, exist_ok=True)
    calls, most, code = asyncio.run(measure(arguments, folder))
    found = figures(folder)
    if code != 0 or found.get("rows.broken") != 0:
        sys.exit(f"the run in {folder} failed: exit code {code}, figures {found}")
    total, seconds, rate, in_flight = calls.middle()
    share = 100 * in_flight / arguments.in_flight
    print(f"dialogues            {found['rows']:.0f}")
    print(f"calls                {total} in {seconds:.1f} s")
    print(f"calls a second       {rate:.0f} (the limit allows {arguments.in_flight / arguments.latency:.0f})")
    print(f"in flight, middle    {in_flight:.0f} of {arguments.in_flight} ({share:.1f} %)")
    print(f"slowest call         {found['slow.slowest_seconds']:.2f} s")
    print(f"peak resident memory {most:.0f} MiB")
    if not arguments.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
