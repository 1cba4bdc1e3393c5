"""Memory, load time and first-token time beside llama.cpp's, on the same file.

    python benches/engine_memory.py MODEL.gguf [--threads N] [--rounds N] [--cold]

Needs llama-cpp-python and cargo; the engine is built with the release profile.
Each round starts a fresh process of either engine in turn, loads the file,
computes a prompt of 32 tokens, and reads its own resident memory. Medians are
shown. `--cold` drops the file from the page cache before each round.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMPT_TOKENS = 32

THEIRS = """
import json, sys, time
begun = time.perf_counter()
from llama_cpp import Llama
imported = time.perf_counter()
threads = int(sys.argv[2])
llama = Llama(sys.argv[1], n_ctx=4096, n_threads=threads, n_threads_batch=threads, verbose=False)
loaded = time.perf_counter()
vocabulary = llama.n_vocab()
llama.eval([(place * 7919 + 13) % vocabulary for place in range(int(sys.argv[3]))])
first = time.perf_counter()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
mib = lambda name: int(status[name].split()[0]) // 1024
print(json.dumps({
    "load_ms": (loaded - imported) * 1e3, "first_token_ms": (first - imported) * 1e3,
    "rss_mib": mib("VmRSS"), "peak_mib": mib("VmHWM"),
}))
"""


def drop_from_cache(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def build():
    command = ["cargo", "build", "--locked", "--quiet", "--release", "-p", "nearfar-engine", "--example", "first_token", "--message-format=json"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    artifacts = [json.loads(line) for line in built.splitlines()]
    return next(a["executable"] for a in artifacts if a.get("executable") and a["target"]["name"] == "first_token")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--binary", help="the example first_token, built before")
    asked = parser.parse_args()
    ours = asked.binary or build()
    commands = {
        "nearfar": [ours, asked.model, str(asked.threads)],
        "llama.cpp": [sys.executable, "-c", THEIRS, asked.model, str(asked.threads), str(PROMPT_TOKENS)],
    }
    results = {name: [] for name in commands}
    for _ in range(asked.rounds):
        for name, command in commands.items():
            if asked.cold:
                drop_from_cache(asked.model)
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            results[name].append(json.loads(out))
    size = os.path.getsize(asked.model) / 2**20
    print(f"{asked.model}: {size:.0f} MiB, {asked.threads} threads, medians of {asked.rounds}"
          + (", cold" if asked.cold else ""))
    print(f"{'':12}{'load ms':>10}{'first ms':>10}{'RSS MiB':>10}{'peak MiB':>10}{'RSS/file':>10}")
    for name, rows in results.items():
        middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        print(f"{name:12}{middle['load_ms']:10.0f}{middle['first_token_ms']:10.0f}{middle['rss_mib']:10.0f}"
              f"{middle['peak_mib']:10.0f}{middle['rss_mib'] / size:10.2f}")


if __name__ == "__main__":
    main()
