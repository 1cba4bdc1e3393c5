"""nearfar's engine beside llama.cpp's on the same files, the same threads, in turns.

    benches/engine/run [--models DIR] [--only TEXT] [--repeat 5] [--threads N] [--json FILE]

For each synthetic model (models.py) and cell (prefill of 32, 512 and 2,048
tokens; decode of 32 tokens after 0, 2,048 and 4,096) both engines run in turns;
medians count. llama.cpp runs each cell with the flags that were best for it in
a trial (of prefill 512, and of decode at the cell's depth up to 2,048): flash
attention on or off, keys and values in f16 or q8_0. The limit of
decode is the read bandwidth, measured between the turns (on a shared machine it
changes by the minute), over the file's bytes that a token reads.
Exits with 1 when a cell is below 1.0, the geometric mean is below 1.6, or
decode at depth 0 is below three quarters of the limit; with --isa, which masks
what the processor has, only a cell below 1.0 counts. Memory and load times are
memory.py's.
"""

import argparse
import json
import math
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time

import llama_cpp as C

import models

CELLS = [("prefill", 32), ("prefill", 512), ("prefill", 2048), ("decode", 0), ("decode", 2048), ("decode", 4096)]
FLAGS = {"flash": (1, C.GGML_TYPE_F16), "plain": (0, C.GGML_TYPE_F16), "flash, q8_0 cache": (1, C.GGML_TYPE_Q8_0)}
DECODED, CONTEXT = 32, 4608
# Kept, or the callback would be collected while llama.cpp still calls it.
QUIET = C.llama_log_callback(lambda *_: None)
BOUND_CELL, BOUND_MEAN, BOUND_LIMIT = 1.0, 1.6, 0.75


def tokens(count, seed):
    rng = random.Random(seed)
    return [rng.randrange(1000, 100000) for _ in range(count)]


class Ours:
    """The engine's example `speed`, driven by lines."""

    def __init__(self, binary, path, threads, isa):
        command = [binary, str(path), "--threads", str(threads), "--context", str(CONTEXT)] + (["--isa", isa] if isa else [])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.loaded = json.loads(self.process.stdout.readline())

    def ask(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"nearfar's side ended at: {' '.join(map(str, words))}")
        return json.loads(line)

    def run(self, kind, size, seed):
        return self.ask(kind, size, DECODED, seed)["seconds"]

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class Theirs:
    """llama.cpp through its C interface; Python adds some microseconds a call."""

    def __init__(self, path, threads, flash, cache):
        options = C.llama_model_default_params()
        self.model = C.llama_model_load_from_file(str(path).encode(), options)
        options = C.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = CONTEXT, 2048, 512
        options.n_threads = options.n_threads_batch = threads
        options.flash_attn_type, options.type_k, options.type_v = flash, cache, cache
        self.context = C.llama_init_from_model(self.model, options)
        self.memory = C.llama_get_memory(self.context)
        self.batch = C.llama_batch_init(2048, 0, 1)
        self.filled = 0

    def decode(self, ids, start):
        for at in range(0, len(ids), 2048):
            piece = ids[at : at + 2048]
            self.batch.n_tokens = len(piece)
            for i, token in enumerate(piece):
                self.batch.token[i], self.batch.pos[i] = token, start + at + i
                self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
                self.batch.logits[i] = at + i == len(ids) - 1
            if C.llama_decode(self.context, self.batch):
                sys.exit("llama.cpp refused a batch")
        C.llama_synchronize(self.context)

    def run(self, kind, size, seed):
        if kind == "prefill":
            C.llama_memory_clear(self.memory, True)
            self.filled = size
            ids = tokens(size, seed)
            begun = time.perf_counter()
            self.decode(ids, 0)
            return time.perf_counter() - begun
        if self.filled < size:
            self.decode(tokens(size, 1)[self.filled :], self.filled)
            self.filled = size
        # What lies deeper goes; what the first tokens were makes no difference.
        C.llama_memory_seq_rm(self.memory, 0, size, -1)
        self.filled = size
        ids = tokens(DECODED, seed)
        begun = time.perf_counter()
        for i, token in enumerate(ids):
            self.decode([token], size + i)
        return time.perf_counter() - begun

    def end(self):
        C.llama_batch_free(self.batch)
        C.llama_free(self.context)
        C.llama_model_free(self.model)


def rest():
    # The other side's threads may still spin for a moment.
    time.sleep(0.1)


def trial_of(cell):
    """The cell whose trial decides for this one."""
    return ("prefill", 512) if cell[0] == "prefill" else ("decode", min(cell[1], 2048))


def in_turn(cells):
    return [cell for cell in cells if cell[0] == "prefill"] + [cell for cell in reversed(cells) if cell[0] == "decode"]


def measure(args, path, cells):
    """{cell: (our seconds, their seconds, their flags)}, medians, and what our side told when it loaded."""
    ours = Ours(args.binary, path, args.threads, args.isa)
    trials = {}
    for flags, (flash, cache) in FLAGS.items():
        theirs = Theirs(path, args.threads, flash, cache)
        theirs.run("prefill", 32, 1)
        # From small prompts to large ones, then from deep to shallow: what is
        # filled once serves the next.
        for cell in in_turn(sorted({trial_of(cell) for cell in cells})):
            trials.setdefault(cell, {})[flags] = min(theirs.run(*cell, 2) for _ in range(2 if cell[0] == "decode" else 1))
        theirs.end()
    best = {cell: min(trials[trial_of(cell)], key=trials[trial_of(cell)].get) for cell in cells}
    ours.run("prefill", 32, 1)
    result, bandwidths = {}, []
    for flags in sorted(set(best.values())):
        theirs = Theirs(path, args.threads, *FLAGS[flags])
        theirs.run("prefill", 32, 1)
        for cell in [cell for cell in in_turn(cells) if best[cell] == flags]:
            mine, other = [], []
            if cell[0] == "decode":
                # Fill both to the depth once; it is not what is measured.
                ours.run(*cell, 1), theirs.run(*cell, 1)
            for turn in range(args.repeat):
                rest()
                mine.append(ours.run(*cell, 10 + turn))
                rest()
                other.append(theirs.run(*cell, 10 + turn))
                if cell == ("decode", 0):
                    bandwidths.append(ours.ask("memory")["bandwidth_bytes_per_second"])
            result[cell] = (statistics.median(mine), statistics.median(other), flags)
        theirs.end()
    result = {cell: result[cell] for cell in cells}
    bandwidths = bandwidths or [ours.ask("memory")["bandwidth_bytes_per_second"]]
    ours.end()
    return result, {**ours.loaded, "bandwidth_bytes_per_second": statistics.median(bandwidths)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, help="the built example 'speed' (benches/engine/run passes it)")
    parser.add_argument("--models", default="target/bench-models")
    parser.add_argument("--only", default="", help="models whose name holds this text")
    parser.add_argument("--cells", default="", help="cells whose name holds this text, as 'decode' or 'prefill 512'")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0)))
    parser.add_argument("--isa", help="our instruction set, as 'avx2' (compare with a llama.cpp that was built likewise)")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    C.llama_log_set(QUIET, None)
    C.llama_backend_init()
    cells = [cell for cell in CELLS if args.cells in f"{cell[0]} {cell[1]}"]
    rows, failed = [], []
    for name, kind, path in models.make(args.models):
        if args.only not in path.stem:
            continue
        print(f"{path.stem} ...", file=sys.stderr, flush=True)
        result, told = measure(args, path, cells)
        limit = told["bandwidth_bytes_per_second"] / told["bytes_per_token"]
        for (what, size), (mine, other, flags) in result.items():
            count = size if what == "prefill" else DECODED
            row = dict(model=path.stem, cell=f"{what} {size}", nearfar=count / mine, llama_cpp=count / other, ratio=other / mine, flags=flags, limit=limit if what == "decode" else None)
            rows.append(row)
            if row["ratio"] < BOUND_CELL:
                failed.append(f"{row['model']} {row['cell']}: {row['ratio']:.2f} of llama.cpp")
            if not args.isa and (what, size) == ("decode", 0) and count / mine < BOUND_LIMIT * limit:
                failed.append(f"{row['model']} decode 0: {100 * count / mine / limit:.0f} % of the bandwidth limit")
        rows[-1]["memory"] = told
    print(f"{args.threads} threads, llama-cpp-python {C.__version__}, medians of {args.repeat} in turns, tokens per second")
    print(f"{'model':<22} {'cell':<13} {'nearfar':>9} {'llama.cpp':>10} {'ratio':>6}  {'of limit':>8}  llama.cpp's best flags")
    for row in rows:
        share = f"{100 * row['nearfar'] / row['limit']:.0f} %" if row["limit"] else ""
        print(f"{row['model']:<22} {row['cell']:<13} {row['nearfar']:>9.1f} {row['llama_cpp']:>10.1f} {row['ratio']:>6.2f}  {share:>8}  {row['flags']}")
        if "memory" in row:
            told = row["memory"]
            print(f"{'':<22} read bandwidth {told['bandwidth_bytes_per_second'] / 1e9:.1f} GB/s, limit {row['limit'] or told['bandwidth_bytes_per_second'] / told['bytes_per_token']:.0f} tok/s")
    mean = math.exp(statistics.mean(math.log(row["ratio"]) for row in rows))
    print(f"geometric mean of {len(rows)} cells: {mean:.2f}")
    if args.json:
        args.json.write_text(json.dumps({"threads": args.threads, "geometric_mean": mean, "cells": rows}, indent=1))
    if not args.isa and mean < BOUND_MEAN:
        failed.append(f"geometric mean {mean:.2f}, bound {BOUND_MEAN}")
    for line in failed:
        print("missed:", line)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
