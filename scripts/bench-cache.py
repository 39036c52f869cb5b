#!/usr/bin/env python3
"""CPU time of a request that the cache answers, and what the usage ledger adds to a request.

    cargo build --release --bin llamagate
    cargo build --bin fake-llama-server --features test-support
    scripts/bench-cache.py [--gateway target/release/llamagate] [--fake target/debug/fake-llama-server] --model FILE.gguf

Three gateways run in turn in front of the fake llama-server: one with the cache, one with the ledger, one with neither.
One client sends after its last answer. The CPU time is what the scheduler reports for the threads of the gateway. Each round
has a turn of each gateway; the figures are medians of the rounds with quartiles, and the ratios are of the same round.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

BODY = {"messages": [{"role": "user", "content": "x" * 256}], "temperature": 0, "max_tokens": 8}
COMMON = {"HOST": "127.0.0.1", "PORT": "0", "PORT_HEALTH": "0", "AUTH_ENABLED": "true", "LOG_TO_FILE": "true",
          "HF_HUB_OFFLINE": "true", "MAX_REQUESTS_PER_MINUTE": "100000000", "LLAMAGATE_API_KEY": "benchmark-key-0123456789abcdef"}
GATEWAYS = {
    "neither": {"CACHE": "off", "USAGE_DB": "off"},
    "ledger": {"CACHE": "off"},
    "hit": {"CACHE": "safe", "USAGE_DB": "off"},
    "hit, ledger": {"CACHE": "safe"},
    "hit, ledger, disk": {"CACHE": "safe", "CACHE_PERSIST_TO_DISK": "true"},
}


class Gateway:
    """A gateway in a folder of its own, and a connection to it."""

    def __init__(self, program, fake, model, settings, number):
        self.folder = tempfile.TemporaryDirectory()
        port_file = Path(self.folder.name, "port")
        link = Path(self.folder.name, "model.gguf")
        link.symlink_to(Path(model).resolve())
        environment = COMMON | settings | {
            "DATA_DIR": self.folder.name, "HOME": self.folder.name, "PATH": os.environ["PATH"], "MODEL_PATH": str(link),
            "LLAMA_SERVER": str(Path(fake).resolve()), "PORT_FILE": str(port_file), "PORT_BACKEND": str(21000 + 100 * number)}
        log = open(Path(self.folder.name, "log"), "w", encoding="utf-8")
        self.process = subprocess.Popen([str(Path(program).resolve()), "serve"], env=environment, stdout=log, stderr=log, cwd=self.folder.name)
        end = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text(encoding="utf-8").strip()):
            if time.monotonic() > end or self.process.poll() is not None:
                raise SystemExit(Path(self.folder.name, "log").read_text(encoding="utf-8"))
            time.sleep(0.05)
        self.socket = socket.create_connection(("127.0.0.1", int(port_file.read_text(encoding="utf-8"))))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = json.dumps(BODY).encode()
        head = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {COMMON['LLAMAGATE_API_KEY']}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n")
        self.request = head.encode() + body

    def ask(self):
        """Sends the request and returns the head of its answer."""
        self.socket.sendall(self.request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(65536)
        head, _, body = answer.partition(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        while len(body) < length:
            body += self.socket.recv(65536)
        return head

    def wait_ready(self):
        """Asks until a request is answered well, and as often again as fills caches and pools."""
        end = time.monotonic() + 60
        while not self.ask().startswith(b"HTTP/1.1 200"):
            if time.monotonic() > end:
                raise SystemExit("the gateway does not become ready")
            time.sleep(0.1)
        for _ in range(200):
            head = self.ask()
        return head

    def cpu(self):
        """Returns the CPU time of all its threads, in microseconds."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1000

    def measure(self, requests):
        """Returns the CPU time of a request in microseconds, its writes to the disk included."""
        before = self.cpu()
        assert all(self.ask().startswith(b"HTTP/1.1 200") for _ in range(requests))
        return (self.cpu() - before) / requests

    def stop(self):
        """Ends it."""
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)
        self.folder.cleanup()


def shown(values):
    """Returns the median, with quartiles."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{middle:8.2f} ({low:.2f} to {high:.2f})"


def main():
    """Measures and prints."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--gateway", default="target/release/llamagate")
    arguments.add_argument("--fake", default="target/debug/fake-llama-server")
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--requests", type=int, default=1000)
    options = arguments.parse_args()
    gateways = {}
    try:
        for number, (name, settings) in enumerate(GATEWAYS.items()):
            gateways[name] = Gateway(options.gateway, options.fake, options.model, settings, number)
            is_hit = b"x-llamagate-cache: hit" in gateways[name].wait_ready()
            assert is_hit == name.startswith("hit"), name
        rounds = [{name: gateway.measure(options.requests) for name, gateway in gateways.items()}
                  for _ in range(options.rounds)]
    finally:
        for gateway in gateways.values():
            gateway.stop()
    for name in GATEWAYS:
        print(f"{name:>20}: {shown([turns[name] for turns in rounds])} us of a request, "
              f"{shown([turns[name] / turns['neither'] for turns in rounds])} times neither")
    for name, (more, less) in {"the ledger": ("ledger", "neither"), "the ledger at a hit": ("hit, ledger", "hit"),
                               "the disk at a hit": ("hit, ledger, disk", "hit, ledger")}.items():
        print(f"{name:>20}: {shown([turns[more] - turns[less] for turns in rounds])} us more")


if __name__ == "__main__":
    main()
