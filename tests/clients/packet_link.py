"""A link between two network namespaces that delays, loses, doubles and reorders packets.

Usage: packet_link.py NAMESPACE NAMESPACE DELAY_MS JITTER_MS LOSS DUPLICATES REORDERED SEED. The last but one are
percentages. Creates the interface `slow0` in both namespaces, prints `ready`, and passes packets between them until SIGTERM;
then it prints what it has done with them. SIGUSR1 makes it lose every packet for three seconds.

It does what netem does, on kernels that have no netem too.
"""

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import signal
import struct
import sys
import time

TUNSETIFF = 0x400454CA
TUN_WITHOUT_HEADER = 0x1001
NEW_NETWORK = 0x40000000
LONGEST_PACKET = 65536
# Packets that wait at once; more are lost, as in any queue.
MOST_WAITING = 5000
OUTAGE_SECONDS = 3

libc = ctypes.CDLL(None, use_errno=True)


def enter(path):
    """Enters a network namespace."""
    namespace = os.open(path, os.O_RDONLY)
    if libc.setns(namespace, NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), f"cannot enter {path}")
    os.close(namespace)


def interface_in(namespace):
    """Creates the interface in a namespace; returns its descriptor."""
    enter(f"/run/netns/{namespace}")
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", b"slow0", TUN_WITHOUT_HEADER))
    return descriptor


def main():
    """Passes packets on."""
    near, far = sys.argv[1:3]
    delay, jitter, loss, duplicates, reordered, seed = (float(word) for word in sys.argv[3:9])
    chance = random.Random(seed)
    ends = [interface_in(near), interface_in(far)]
    counts = dict.fromkeys(["passed", "lost", "missed", "doubled", "overtook"], 0)
    waiting = []
    state = {"ends": False, "outage": 0.0}
    signal.signal(signal.SIGTERM, lambda *_: state.update(ends=True))
    signal.signal(signal.SIGUSR1, lambda *_: state.update(outage=time.monotonic() + OUTAGE_SECONDS))
    print("ready", flush=True)
    number = 0
    while not state["ends"]:
        patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.5
        readable, _, _ = select.select(ends, [], [], patience)
        now = time.monotonic()
        for end in readable:
            packet = os.read(end, LONGEST_PACKET)
            if now < state["outage"]:
                counts["missed"] += 1
                continue
            if chance.random() * 100 < loss or len(waiting) >= MOST_WAITING:
                counts["lost"] += 1
                continue
            other = ends[1] if end == ends[0] else ends[0]
            copies = 1 + (chance.random() * 100 < duplicates)
            counts["doubled"] += copies - 1
            for _ in range(copies):
                late = max(0.0, chance.gauss(delay, jitter)) / 1000
                if chance.random() * 100 < reordered:
                    late = 0.0
                    counts["overtook"] += 1
                number += 1
                heapq.heappush(waiting, (now + late, number, other, packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, end, packet = heapq.heappop(waiting)
            try:
                os.write(end, packet)
                counts["passed"] += 1
            except OSError:
                counts["lost"] += 1
    print(json.dumps(counts), flush=True)


main()
