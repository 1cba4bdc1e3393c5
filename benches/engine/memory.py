"""Memory, load time and first-token time beside llama.cpp's, on the same files.

    benches/engine/memory [--models DIR] [--only TEXT] [--rounds 5] [--threads N] [--json FILE]

Each round starts a fresh process of either engine in turn, which loads the file
and computes a prompt of 32 tokens. Medians are shown, with the file in the
system's page cache (warm) and dropped from it before each start (cold; what the
system does not let go of is said). A copy is measured, which nobody else uses.

load     until the model is ready; nearfar packs its weights here
first    until the first token's logits are there, the load included
RSS      resident memory then, less what the process had before the load (an
         interpreter and its libraries weigh on llama.cpp's side alone); the
         pages of a mapped file that are resident count, as the system counts them
peak     the most that was resident, less the same

llama.cpp runs as its Python package does, with the file mapped, once with flash
attention and a context of 512 tokens, so that its keys and values, which it
sets aside at once, weigh as little as ours. Exits with 1 when nearfar's RSS is
more than 1.15 of the file (models.py's files; keys and values of 32 tokens
included).
"""

import argparse
import ctypes
import json
import mmap
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import models

PROMPT_TOKENS, BOUND_RSS = 32, 1.15

THEIRS = """
import json, sys, time
import llama_cpp as C
mib = lambda name: int(dict(line.split(":", 1) for line in open("/proc/self/status"))[name].split()[0]) / 1024
path, threads, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
quiet = C.llama_log_callback(lambda *_: None)
C.llama_log_set(quiet, None)
C.llama_backend_init()
before = mib("VmRSS")
begun = time.perf_counter()
model = C.llama_model_load_from_file(path.encode(), C.llama_model_default_params())
params = C.llama_context_default_params()
params.n_ctx, params.n_threads, params.n_threads_batch, params.flash_attn_type = 512, threads, threads, 1
context = C.llama_init_from_model(model, params)
loaded = time.perf_counter()
vocabulary = C.llama_vocab_n_tokens(C.llama_model_get_vocab(model))
ids = (C.llama_token * count)(*[(place * 7919 + 13) % vocabulary for place in range(count)])
assert C.llama_decode(context, C.llama_batch_get_one(ids, count)) == 0
C.llama_synchronize(context)
first = time.perf_counter()
print(json.dumps({"load_ms": (loaded - begun) * 1e3, "first_token_ms": (first - begun) * 1e3,
                  "rss_mib": mib("VmRSS") - before, "peak_mib": mib("VmHWM") - before}))
"""


def drop(path):
    """Drops a file from the page cache; the share that stayed."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        length = os.path.getsize(path)
        pages = -(-length // mmap.PAGESIZE)
        # Private and writable, so that its address can be had; nothing is written.
        view = mmap.mmap(file.fileno(), length, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        held = (ctypes.c_ubyte * pages)()
        place = ctypes.c_char.from_buffer(view)
        failed = ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(ctypes.addressof(place)), ctypes.c_size_t(length), held)
        del place
        view.close()
        return None if failed else sum(flag & 1 for flag in held) / pages


def read(path):
    with open(path, "rb", buffering=0) as file:
        piece = bytearray(1 << 22)
        while file.readinto(piece):
            pass


def copy(path, folder):
    """A file that no other program has mapped: mapped pages are not let go of."""
    own = pathlib.Path(folder) / path.name
    shutil.copyfile(path, own)
    with open(own, "rb") as file:
        os.fsync(file.fileno())
    return own


def measure(args, path):
    commands = {
        "nearfar": [args.binary, str(path), str(args.threads)],
        "llama.cpp": [sys.executable, "-c", THEIRS, str(path), str(args.threads), str(PROMPT_TOKENS)],
    }
    told = {}
    for state in ("warm", "cold"):
        rows, stayed = {name: [] for name in commands}, []
        for _ in range(args.rounds):
            for name, command in commands.items():
                if state == "cold":
                    stayed.append(drop(path))
                else:
                    read(path)
                out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                rows[name].append(json.loads(out))
        told[state] = {name: {key: statistics.median(row[key] for row in of) for key in of[0]} for name, of in rows.items()}
        if state == "cold":
            kept = [share for share in stayed if share is not None]
            told["still_cached"] = max(kept) if kept else None
    return told


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, help="the built example 'first_token' (benches/engine/memory passes it)")
    parser.add_argument("--models", default="target/bench-models")
    parser.add_argument("--only", default="", help="models whose name holds this text")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    print(f"{args.threads} threads, medians of {args.rounds} fresh processes each, in turns; ms and MiB")
    print(f"{'model':<22} {'file':<5} {'engine':<10} {'load':>8} {'first':>8} {'RSS':>8} {'peak':>8} {'RSS/file':>9}")
    figures, missed = {}, []
    for _, _, path in models.make(args.models):
        if args.only not in path.stem:
            continue
        size = path.stat().st_size / 2**20
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            told = figures[path.stem] = {"file_mib": size, **measure(args, copy(path, folder))}
        for state in ("warm", "cold"):
            for name, row in told[state].items():
                share = row["rss_mib"] / size
                print(f"{path.stem:<22} {state:<5} {name:<10} {row['load_ms']:>8.0f} {row['first_token_ms']:>8.0f} "
                      f"{row['rss_mib']:>8.0f} {row['peak_mib']:>8.0f} {share:>9.2f}", flush=True)
                if name == "nearfar" and share > BOUND_RSS:
                    missed.append(f"{path.stem}, {state}: RSS is {share:.2f} of the file, bound {BOUND_RSS}")
        left = told["still_cached"]
        if left is None or left > 0.01:
            print(f"{'':<22} cold: the system does not tell what it keeps of the file" if left is None
                  else f"{'':<22} cold: the system kept up to {100 * left:.0f} % of the file")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))
    for line in missed:
        print("missed:", line)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
