"""What a gateway adds: nearfar beside LiteLLM, Portkey and TensorZero, on one provider double.

    benches/overhead/run [--rounds 4] [--only nearfar,portkey] [--seconds 2] [--json FILE]

README.md says what is measured and how. Each gateway runs on the first
processor, the double and the load generator on the second. In every round each
road is measured in turn: the double itself, then it through each gateway; the
gateways that are not measured are stopped (SIGSTOP) meanwhile.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import gateways

CHUNKS, DELAY_US = 64, 2000
# Name: concurrency, whether the client wants a stream, the chunks of an answer, the pause between two of a stream.
PHASES = {
    "whole 1": (1, False, CHUNKS, 0),
    "whole 16": (16, False, CHUNKS, 0),
    "stream 1": (1, True, CHUNKS, DELAY_US),
    "stream 16": (16, True, CHUNKS, DELAY_US),
    "brief 16": (16, True, 16, 0),
    "flood 16": (16, True, 528, 0),
}
# What the table shows: (name, unit, what it is held to for nearfar).
COLUMNS = [
    ("added p50, 1", "µs", None), ("added p99, 1", "µs", 400), ("added p50, 16", "µs", None), ("added p99, 16", "µs", None),
    ("added TTFT, 1", "µs", None), ("added TTFT, 16", "µs", None), ("chunk p50, 1", "µs", None), ("chunk p99, 1", "µs", None),
    ("chunk p50, 16", "µs", None), ("CPU/request, 1", "µs", None), ("CPU/request, 16", "µs", None), ("CPU/chunk, 1", "µs", 8),
    ("CPU/chunk, 16", "µs", 8), ("CPU/chunk, flood", "µs", 8), ("peak RSS", "MB", None),
]


class Wire:
    """The process of the double and the load generator."""

    def __init__(self, binary):
        command = ["taskset", "-c", "1", binary]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().split()[1])

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def load(self, road, phase, requests, seconds):
        concurrency, streamed, chunks, delay = PHASES[phase]
        self.ask(f"set {chunks} {delay} {'APART' if streamed else 'TOGETHER'}")
        kind = "STREAM" if streamed else "WHOLE"
        words = f"load {road.address} {road.path} {concurrency} {requests} {int(seconds * 1000)} {kind} {road.model}"
        return json.loads(self.ask("\t".join([words, *road.headers])))


def percentile(samples, share):
    """The smallest sample that at least this share does not exceed, in µs."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * share // 100) - 1))] / 1e3 if ordered else float("nan")


class Taken:
    """All samples of one road, by phase."""

    def __init__(self):
        self.samples = {name: {"latency": [], "ttft": [], "chunk": [], "gap": []} for name in PHASES}
        self.cpu = {name: 0.0 for name in PHASES}
        self.failed = 0

    def add(self, phase, figures, cpu):
        for kind, all_ in self.samples[phase].items():
            all_.extend(figures[kind])
        self.cpu[phase] += cpu
        self.failed += figures["failed"]

    def p(self, phase, kind, share):
        return percentile(self.samples[phase][kind], share)

    def cpu_per_request(self, phase):
        count = len(self.samples[phase]["latency"])
        return self.cpu[phase] * 1e6 / count if count else float("nan")

    def figures(self, direct, peak):
        added = lambda phase, kind, share: self.p(phase, kind, share) - direct.p(phase, kind, share)
        # With pauses: all that a stream costs over its chunks, that of its request included. Without: what a chunk more costs.
        chunk = lambda streamed: self.cpu_per_request(streamed) / CHUNKS
        more = (self.cpu_per_request("flood 16") - self.cpu_per_request("brief 16")) / (PHASES["flood 16"][2] - PHASES["brief 16"][2])
        values = [
            added("whole 1", "latency", 50), added("whole 1", "latency", 99),
            added("whole 16", "latency", 50), added("whole 16", "latency", 99),
            added("stream 1", "ttft", 50), added("stream 16", "ttft", 50),
            added("stream 1", "chunk", 50), added("stream 1", "chunk", 99), added("stream 16", "chunk", 50),
            self.cpu_per_request("whole 1"), self.cpu_per_request("whole 16"),
            chunk("stream 1"), chunk("stream 16"),
            more, peak,
        ]
        return {name: value for (name, _, _), value in zip(COLUMNS, values)}


def measure(args):
    wire = Wire(args.wire)
    folder = tempfile.mkdtemp(prefix="overhead-")
    direct = gateways.Direct(wire.port)
    roads, absent = [], {}
    for kind in gateways.KINDS:
        if args.only and kind.name not in args.only:
            continue
        road = None
        try:
            road = kind(args, wire.port, pathlib.Path(folder))
            for phase in PHASES:
                warm = wire.load(road, phase, 40, 20)
                if warm["failed"]:
                    raise RuntimeError(warm["problem"])
            road.stop()
            roads.append(road)
        except (OSError, RuntimeError, subprocess.SubprocessError) as problem:
            absent[kind.name] = str(problem)
            if road:
                road.end()
    taken = {road.name: Taken() for road in [direct, *roads]}
    try:
        for round_ in range(args.rounds):
            turn = roads[round_ % max(1, len(roads)):] + roads[: round_ % max(1, len(roads))]
            for road in [direct, *turn]:
                road.go_on()
                # What was waiting while it stood still is done first.
                wire.load(road, "whole 16", 100, 0.5)
                for name in PHASES:
                    before = road.cpu_seconds()
                    figures = wire.load(road, name, 4000, args.seconds)
                    taken[road.name].add(name, figures, road.cpu_seconds() - before)
                    if figures["failed"]:
                        print(f"{road.name}, {name}: {figures['failed']} failed: {figures['problem']}", file=sys.stderr)
                road.stop()
            print(f"round {round_ + 1} of {args.rounds}", file=sys.stderr)
        rows = {road.name: taken[road.name].figures(taken["direct"], road.peak_mb()) for road in roads}
        processes = {road.name: road.processes() for road in roads}
    finally:
        for road in roads:
            road.end()
        wire.process.kill()
    base = taken["direct"]
    return {
        "chunks": CHUNKS, "delay_us": DELAY_US, "rounds": args.rounds, "seconds": args.seconds,
        "versions": {road.name: road.version for road in roads},
        "direct_us": {f"{phase} {kind} p{share}": base.p(phase, kind, share)
                      for phase, kind, share in [("whole 1", "latency", 50), ("whole 1", "latency", 99), ("whole 16", "latency", 50),
                                                 ("whole 16", "latency", 99), ("stream 1", "ttft", 50), ("stream 1", "chunk", 50)]},
        "requests": {name: {phase: len(one.samples[phase]["latency"]) for phase in PHASES} for name, one in taken.items()},
        "failed": {name: one.failed for name, one in taken.items()},
        "rows": rows, "processes": processes, "absent": absent,
    }


def show(told):
    names = list(told["rows"])
    print(f"{'':16}" + "".join(f"{name:>14}" for name in names) + f"{'held to':>12}")
    for column, unit, bound in COLUMNS:
        values = [told["rows"][name][column] for name in names]
        line = f"{column:16}" + "".join(f"{value:>11.{0 if value >= 100 else 1}f} {unit}" for value in values)
        if "nearfar" in names:
            mine = told["rows"]["nearfar"][column]
            ahead = all(mine <= value for value in values)
            line += f"{f'≤ {bound}' if bound else '':>8} " + ("ahead" if ahead else "BEHIND") + ("" if not bound or mine <= bound else ", OVER")
        print(line)
    for name, why in told["absent"].items():
        print(f"{name}: not measured: {why}")
    direct = ", ".join(f"{name} {value:.0f}" for name, value in told["direct_us"].items())
    print(f"without a gateway (µs): {direct}")


def main():
    here = pathlib.Path(__file__).resolve().parent.parent.parent
    cache = here / "target" / "overhead"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2, help="of each phase")
    parser.add_argument("--only", type=lambda text: text.split(","), help="names, separated by commas")
    parser.add_argument("--json", help="also write all figures there; - for nothing but them on standard output")
    parser.add_argument("--nearfar", default=str(here / "target/release/nearfar"))
    parser.add_argument("--wire", default=str(cache / "wire"))
    parser.add_argument("--cache", default=str(cache), help="where the peers are installed")
    args = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two processors are needed: one for the gateway, one for the double and the load")
    args.cache = pathlib.Path(args.cache)
    began = time.time()
    told = measure(args)
    told["took_s"] = round(time.time() - began)
    if args.json == "-":
        print(json.dumps(told))
        return
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(told, indent=1) + "\n")
    show(told)


if __name__ == "__main__":
    main()
