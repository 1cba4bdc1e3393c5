"""nearfar's API beside llama.cpp's server: a voice conversation, several at once, an intruder.

    benches/engine/serve [--llama-server PATH] [--only voice|crowd|intruder|restart] [--model FILE] [--json FILE]

Both answer over HTTP as clients meet them, from the same file, with the same
threads; one server runs at a time, in turns.

voice     a system prompt of about 600 tokens, 10 turns, 30 tokens each: time to
          the first token, the median of turns 2 to 10 and of turn 1
crowd     1, 2, 4 and 8 conversations at once, sampled at temperature 0.8 (greedy
          noise falls into loops, which guesses from the prompt make too fast):
          tokens per second of all, and the 99th percentile of the gap between
          two tokens of one
intruder  one speaks while a prompt of about 2,000 tokens arrives: its longest gap
restart   nearfar alone: the very first request after a restart, a second after
          the model is ready, with a pinned system prompt of about 600 tokens;
          beside a warm one and beside one whose prompt is new

What each scenario is held to is printed beside it.
"""

import argparse
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

TOKENS = 30


def text(words, seed):
    """Lower-case nonsense: about one and a third tokens a word with the models of models.py."""
    rng = random.Random(seed)
    return " ".join("".join(rng.choice("etaoinsrhdlu") for _ in range(rng.choice([2, 3, 3]))) for _ in range(words))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One server under measurement, reached at 127.0.0.1:port."""

    def wait(self, path, seconds=180):
        end = time.time() + seconds
        while time.time() < end:
            if self.process.poll() is not None:
                sys.exit(f"{self.name} ended at its start, see {self.log.name}")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        sys.exit(f"{self.name} is not ready after {seconds} s, see {self.log.name}")

    def stream(self, messages, tokens=TOKENS, stamps=None, temperature=0):
        """(seconds to the first token, stamps of all, the answer, prompt tokens)."""
        body = {"model": self.model, "messages": messages, "stream": True, "max_tokens": tokens, "temperature": temperature,
                "stream_options": {"include_usage": True}, **self.extra}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        begun = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            sys.exit(f"{self.name}: {response.status} {response.read()[:500]}")
        stamps, answer, prompt = stamps if stamps is not None else [], "", None
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if event.get("error"):
                sys.exit(f"{self.name}: {event}")
            if event.get("usage"):
                prompt = event["usage"]["prompt_tokens"]
            for choice in event.get("choices", []):
                delta = choice.get("delta", {})
                piece = delta.get("content") or delta.get("reasoning_content")
                if piece:
                    stamps.append(time.perf_counter())
                    answer += piece
        connection.close()
        return (stamps[0] - begun if stamps else float("inf")), stamps, answer, prompt

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Nearfar(Server):
    name, extra = "nearfar", {}

    def __init__(self, args, state=None):
        self.port, self.model = free_port(), "local/bench"
        self.log = tempfile.NamedTemporaryFile(prefix="nearfar-", suffix=".log", delete=False)
        self.state = state or tempfile.mkdtemp(prefix="nearfar-bench-")
        if state is None:
            add = [args.nearfar, "model", "add", args.model, "--name", "bench", "--state-dir", self.state]
            subprocess.run(add, check=True, stdout=self.log, stderr=self.log)
        self.config = pathlib.Path(self.state) / "bench.toml"
        self.config.write_text(f'[local]\nthreads = {args.threads}\ndefault_model = "bench"\n')
        serve = [args.nearfar, "serve", "--listen", f"127.0.0.1:{self.port}", "--state-dir", self.state, "--config", str(self.config)]
        self.process = subprocess.Popen(serve, stdout=self.log, stderr=self.log)
        self.wait("/healthz")
        self.wait_loaded(args)
        if state is None:
            self.stream([{"role": "user", "content": "a"}], 1)

    def wait_loaded(self, args, seconds=180):
        """Until the model is in memory; no request has been made then."""
        ps = [args.nearfar, "model", "ps", "--json", "--state-dir", self.state]
        end = time.time() + seconds
        while time.time() < end:
            told = subprocess.run(ps, stdout=subprocess.PIPE, stderr=self.log, text=True).stdout
            if told and any(model["name"] == "bench" for model in json.loads(told)["models"]):
                return
            time.sleep(0.05)
        sys.exit(f"the model is not loaded after {seconds} s, see {self.log.name}")

    def stop(self, keep=False):
        super().stop()
        if not keep:
            shutil.rmtree(self.state, ignore_errors=True)


class Llama(Server):
    name, model, extra = "llama.cpp", "bench", {"cache_prompt": True}

    def __init__(self, args, slots=8):
        self.port = free_port()
        self.log = tempfile.NamedTemporaryFile(prefix="llama-", suffix=".log", delete=False)
        command = [args.llama_server, "-m", args.model, "--host", "127.0.0.1", "--port", str(self.port), "-np", str(slots), "-c", str(4096 * slots),
                   "-t", str(args.threads), "-tb", str(args.threads), "-fa", "on", "--cache-reuse", "64", "--jinja", "--no-webui"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        self.wait("/health")
        self.stream([{"role": "user", "content": "a"}], 1)


def conversation(server, seed, turns, system_words=450, stamps=None):
    """Times to the first token of each turn."""
    messages, times, prompt = [{"role": "system", "content": text(system_words, seed)}], [], None
    for turn in range(turns):
        messages.append({"role": "user", "content": text(12, 1000 * seed + turn)})
        first, _, answer, prompt_now = server.stream(messages, stamps=stamps)
        prompt = prompt or prompt_now
        times.append(first)
        messages.append({"role": "assistant", "content": answer})
    return times, prompt


def voice(args):
    result = {}
    for make in (Nearfar, Llama):
        server = make(args)
        later, first = [], []
        for seed in range(1, args.repeat + 1):
            times, prompt = conversation(server, seed, 10)
            first.append(times[0])
            later += times[1:]
        result[server.name] = (statistics.median(first), statistics.median(later), prompt)
        server.stop()
    (f1, l1, p1), (f2, l2, p2) = result["nearfar"], result["llama.cpp"]
    print(f"voice     prompt of {p1} / {p2} tokens; time to first token: turn 1 {1e3 * f1:.0f} / {1e3 * f2:.0f} ms ({f1 / f2:.2f}), "
          f"turns 2-10 {1e3 * l1:.0f} / {1e3 * l2:.0f} ms ({l1 / l2:.2f}, bound 0.70)")
    return {"voice": {"first": [f1, f2], "later": [l1, l2]}}, l1 / l2 <= 0.7


def crowd(args):
    result, good = {}, True
    for count in (1, 2, 4, 8):
        figures = {}
        for make in (Nearfar, Llama):
            server = make(args)
            took, written, gaps = 0, 0, []
            for turn in range(args.repeat):
                lines = [[] for _ in range(count)]

                def speak(index):
                    server.stream([{"role": "user", "content": text(40, 100 * turn + index)}], 96, lines[index], 0.8)

                begun = time.perf_counter()
                threads = [threading.Thread(target=speak, args=(i,)) for i in range(count)]
                [t.start() for t in threads]
                [t.join() for t in threads]
                took += time.perf_counter() - begun
                written += sum(map(len, lines))
                gaps += [b - a for line in lines for a, b in zip(line, line[1:])]
            gaps.sort()
            figures[server.name] = (written / took, gaps[int(0.99 * (len(gaps) - 1))])
            server.stop()
        (r1, g1), (r2, g2) = figures["nearfar"], figures["llama.cpp"]
        good &= r1 > r2 and g1 < g2
        print(f"crowd {count}   {r1:.1f} / {r2:.1f} tokens/s ({r1 / r2:.2f}), p99 gap {1e3 * g1:.0f} / {1e3 * g2:.0f} ms ({g1 / g2:.2f}); ahead in both is the bound")
        result[count] = figures
    return {"crowd": result}, good


def intruder(args):
    figures = {}
    for make in (Nearfar, Llama):
        server = make(args)
        stamps = []
        speaker = threading.Thread(target=lambda: server.stream([{"role": "user", "content": text(40, 1)}], 400, stamps))
        speaker.start()
        while len(stamps) < 20:
            time.sleep(0.01)
        begun = time.perf_counter()
        first, _, _, prompt = server.stream([{"role": "user", "content": text(1500, 7)}], 1)
        ended = time.perf_counter()
        speaker.join()
        gaps = [b - a for a, b in zip(stamps, stamps[1:]) if a <= ended and b >= begun]
        figures[server.name] = (max(gaps), first, prompt)
        server.stop()
    (g1, f1, p1), (g2, f2, p2) = figures["nearfar"], figures["llama.cpp"]
    print(f"intruder  {p1} / {p2} tokens arrive: longest gap {1e3 * g1:.0f} / {1e3 * g2:.0f} ms (bound 150 ms), their own first token after {f1:.2f} / {f2:.2f} s")
    return {"intruder": figures}, g1 <= 0.15


def restart(args):
    server = Nearfar(args)
    messages = [{"role": "system", "content": text(450, 3)}]
    body = {"model": server.model, "messages": messages, "pin": True}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    connection.request("POST", "/v1/prefill", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"/v1/prefill: {response.status} {response.read()[:500]}")
    pinned = json.loads(response.read())["computed_tokens"]

    def ask(server, seed, system=messages):
        return server.stream(system + [{"role": "user", "content": text(12, seed)}])[0]

    warm = [ask(server, seed) for seed in range(args.repeat + 1)][1:]
    cold = []
    for seed in range(args.repeat):
        server.stop(keep=True)
        server = Nearfar(args, state=server.state)
        # As somebody who speaks a second after the model is ready: the very
        # first request of this process.
        time.sleep(1)
        cold.append(ask(server, 100 + seed))
        # As many warm ones after as before the restart: the machine changes.
        warm.append(ask(server, 200 + seed))
    new = ask(server, 300, [{"role": "system", "content": text(400, 4)}])
    server.stop()
    cold, warm = statistics.median(cold), statistics.median(warm)
    print(f"restart   first token with a pinned prompt of {pinned} tokens: {1e3 * cold:.0f} ms after a restart, {1e3 * warm:.0f} ms warm "
          f"({cold / warm:.2f}, bound 1.20); with a new prompt of that length {1e3 * new:.0f} ms")
    return {"restart": {"after": cold, "warm": warm, "new": new, "tokens": pinned}}, cold <= 1.2 * warm


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nearfar", required=True, help="the built binary (benches/engine/serve passes it)")
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--only", choices=["voice", "crowd", "intruder", "restart"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    print(f"nearfar / llama.cpp's server, {args.threads} threads, {pathlib.Path(args.model).stem}")
    told, good = {}, True
    for scenario in (voice, crowd, intruder, restart):
        if args.only in (None, scenario.__name__):
            figures, held = scenario(args)
            told.update(figures)
            good &= held
            if not held:
                print(f"missed: {scenario.__name__}")
    if args.json:
        args.json.write_text(json.dumps(told, indent=1))
    sys.exit(not good)


if __name__ == "__main__":
    main()
