"""The gateways under measurement: how each is started in its fastest sensible setting, and what its processes used."""

import http.client
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

TICKS = os.sysconf("SC_CLK_TCK")
PAGES = 1024 * 1024
# Every gateway gets the same processor.
PIN = ["taskset", "-c", "0"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def clean_environment(**more):
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/tmp"), **more}


class Direct:
    """No gateway: what all others are measured against."""

    name, path, headers, model, version = "direct", "/v1/chat/completions", ["authorization: Bearer sk-none"], "double", ""

    def __init__(self, double):
        self.address = f"127.0.0.1:{double}"

    def go_on(self):
        pass

    def stop(self):
        pass

    def cpu_seconds(self):
        return 0.0


class Gateway(Direct):
    """One gateway: a process and all that it starts."""

    def start(self, command, environment, folder):
        self.log = folder / f"{self.name}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(PIN + command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder)

    def wait(self, path, seconds=120):
        end = time.time() + seconds
        while time.time() < end:
            if self.process.poll() is not None:
                raise RuntimeError("it ended at its start: " + self.log.read_text()[-800:])
            try:
                connection = http.client.HTTPConnection(self.address, timeout=5)
                connection.request("GET", path)
                if connection.getresponse().status < 500:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"it did not answer within {seconds} s: " + self.log.read_text()[-800:])

    def pids(self):
        found, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
                try:
                    waiting += map(int, (task / "children").read_text().split())
                except OSError:
                    pass
        return found

    def cpu_seconds(self):
        """User and system time of all its processes, those that ended included."""
        total = 0
        for pid in self.pids():
            try:
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += sum(map(int, fields[11:15]))
            except OSError:
                pass
        return total / TICKS

    def processes(self):
        told = []
        for pid in self.pids():
            try:
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                peak = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
                told.append({"command": b" ".join(words[:2]).decode(errors="replace"), "peak_kib": peak})
            except (OSError, StopIteration):
                pass
        return told

    def peak_mb(self):
        """The sum of the processes' peak resident sets; shared pages count in each."""
        return sum(process["peak_kib"] for process in self.processes()) * 1024 / 1e6

    def signal(self, what):
        for pid in self.pids():
            try:
                os.kill(pid, what)
            except OSError:
                pass

    def go_on(self):
        self.signal(signal.SIGCONT)

    def stop(self):
        self.signal(signal.SIGSTOP)

    def end(self):
        self.go_on()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()


class Nearfar(Gateway):
    """`nearfar serve`: supervisor, gate, egress and the engine, which is idle here."""

    name, model = "nearfar", "double/double"

    def __init__(self, args, double, folder):
        if not pathlib.Path(args.nearfar).exists():
            raise RuntimeError(f"there is no {args.nearfar}: cargo build --release")
        told = subprocess.run([args.nearfar, "--version"], capture_output=True, text=True, check=True)
        self.version = told.stdout.split()[-1]
        key, port = folder / "key", free_port()
        key.write_text("sk-double\n")
        key.chmod(0o600)
        config = folder / "nearfar.toml"
        config.write_text(
            f'[providers.double]\ndialect = "openai"\nbase_url = "http://127.0.0.1:{double}/v1"\nzone = "cloud"\n'
            f'key_file = "{key}"\nopen_list = true\n'
        )
        self.address = f"127.0.0.1:{port}"
        state = str(folder / "state")
        self.start([args.nearfar, "serve", "--listen", self.address, "--state-dir", state, "--config", str(config)],
                   clean_environment(), folder)
        self.wait("/healthz")


class LiteLLM(Gateway):
    """The proxy with one worker, without a database, callbacks or logs of requests. It wants a master key, which Direct's header has."""

    name, version = "litellm", "1.106.2"

    def __init__(self, args, double, folder):
        port, config = free_port(), folder / "litellm.yaml"
        config.write_text(
            "model_list:\n  - model_name: double\n    litellm_params:\n      model: openai/double\n"
            f"      api_base: http://127.0.0.1:{double}/v1\n      api_key: sk-double\n"
            "litellm_settings:\n  set_verbose: false\n  telemetry: false\n  num_retries: 0\n"
            "general_settings:\n  master_key: sk-none\n  disable_spend_logs: true\n"
        )
        self.address = f"127.0.0.1:{port}"
        command = [str(args.cache / "litellm/bin/litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port),
                   "--num_workers", "1", "--telemetry", "False"]
        environment = clean_environment(LITELLM_LOG="ERROR", LITELLM_MODE="PRODUCTION", LITELLM_LOCAL_MODEL_COST_MAP="True",
                                        DISABLE_ADMIN_UI="True", NO_DOCS="True", NO_REDOC="True")
        self.start(command, environment, folder)
        self.wait("/health/liveliness")


class Portkey(Gateway):
    """The node build, without its console; the provider is named in each request's headers, as its users do."""

    name = "portkey"

    def __init__(self, args, double, folder):
        home = args.cache / "portkey/node_modules/@portkey-ai/gateway"
        self.version = (home / "package.json").read_text().split('"version": "')[1].split('"')[0]
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.headers = ["authorization: Bearer sk-double", "x-portkey-provider: openai",
                        f"x-portkey-custom-host: http://127.0.0.1:{double}/v1"]
        environment = clean_environment(NODE_ENV="production", TRUSTED_CUSTOM_HOSTS="127.0.0.1,localhost")
        self.start(["node", str(home / "build/start-server.js"), "--headless", f"--port={port}"], environment, folder)
        self.wait("/")


class TensorZero(Gateway):
    """The gateway's HTTP server (Rust) inside the Python package, without a database: its own binary comes only as a container image."""

    name, path, model = "tensorzero", "/openai/v1/chat/completions", "tensorzero::model_name::double"

    def __init__(self, args, double, folder):
        python = args.cache / "tensorzero/bin/python"
        told = subprocess.run([python, "-c", "import importlib.metadata as m; print(m.version('tensorzero'))"],
                              capture_output=True, text=True, check=True)
        self.version = told.stdout.strip()
        config = folder / "tensorzero.toml"
        config.write_text(
            "[gateway]\ndisable_pseudonymous_usage_analytics = true\nobservability.enabled = false\n"
            '[models.double]\nrouting = ["double"]\n[models.double.providers.double]\ntype = "openai"\nmodel_name = "double"\n'
            f'api_base = "http://127.0.0.1:{double}/v1/"\napi_key_location = "env::DOUBLE_KEY"\n'
        )
        script = folder / "tensorzero_server.py"
        script.write_text(
            "import sys, threading\nfrom tensorzero.tensorzero import _start_http_gateway\n"
            "gateway = _start_http_gateway(config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, "
            "async_setup=False)\nprint('at', gateway.base_url, flush=True)\nthreading.Event().wait()\n"
        )
        self.start([str(python), str(script), str(config)], clean_environment(DOUBLE_KEY="sk-double", RUST_LOG="error"), folder)
        self.address = self.told_address()
        self.wait("/health")

    def told_address(self, seconds=120):
        end = time.time() + seconds
        while time.time() < end and self.process.poll() is None:
            for line in self.log.read_text().splitlines():
                if line.startswith("at http://"):
                    return line.split("//")[1].split("/")[0].replace("0.0.0.0", "127.0.0.1")
            time.sleep(0.1)
        raise RuntimeError("it did not start: " + self.log.read_text()[-800:])


KINDS = [Nearfar, LiteLLM, Portkey, TensorZero]

if __name__ == "__main__":
    sys.exit("run compare.py")
