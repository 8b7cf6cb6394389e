"""The loads on the other core. Each answers a dict: how many were answered, how many failed, how many a second, and how long
they took where that is known."""
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

from ground import HERE, LOAD_CORE
from running import RELEASE

# Another path can be said on the command line.
PACED = {"program": os.path.join(RELEASE, "examples", "paced")}
UNITS_MS = {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * UNITS_MS[unit]


def wrk(ground, url, seconds, connections=32, fields=(), script=(), may_fail=False):
    """HTTP/1.1 with keep-alive, as fast as the answers come."""
    command = ["taskset", "-c", LOAD_CORE, "wrk", "--latency", "-t", "1", "-c", str(connections), "-d",
               f"{max(1, int(seconds + 0.999))}s", *(part for field in fields for part in ("-H", field))]
    if script:
        command += ["-s", os.path.join(HERE, script[0])]
    command += [url, *(["--", *script[1:]] if script else [])]
    load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ground.clients)
    if seconds != int(seconds):
        # It knows whole seconds only, and counts what it has done when it is interrupted.
        time.sleep(seconds)
        load.send_signal(signal.SIGINT)
    out = load.communicate(timeout=seconds + 60)[0]
    counted = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", out) or sys.exit(f"{url}: {out}")
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    broken = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    failed = (int(wrong.group(1)) if wrong else 0) + (sum(map(int, broken.groups())) if broken else 0)
    answered = int(counted.group(1))
    if answered == 0 or (failed and not may_fail):
        sys.exit(f"{url}: {out}")
    rate = float(re.search(r"Requests/sec:\s+(\S+)", out).group(1))
    p50, p99 = (milliseconds(re.search(rf"^\s+{part}%\s+(\S+)", out, re.M).group(1)) for part in (50, 99))
    return {"answered": answered, "failed": failed, "rate": rate, "p50_ms": p50, "p99_ms": p99}


def h2load(ground, url, seconds, fields=()):
    """HTTP/2: four connections with 16 streams each, as fast as the answers come."""
    out = ground.client(["h2load", "-c", "4", "-m", "16", "-t", "1", "-D", duration(seconds),
                         *(part for field in fields for part in ("-H", field)), url], seconds)
    answered, failed = succeeded(url, out)
    return {"answered": answered, "failed": failed, "rate": answered / seconds}


def paced(proxy, seconds, rate, kind, path):
    """An open loop: examples/paced.rs, up to 128 connections, each with one request at a time, at moments drawn by chance."""
    port = proxy.place.plain if kind == "plain" else proxy.place.secure
    connections = min(128, max(8, rate // 20))
    out = proxy.ground.client([PACED["program"], *map(str, (port, kind, rate, seconds, connections, path))], seconds)
    return json.loads(out)


def duration(seconds):
    return f"{round(seconds * 1000)}ms"


def succeeded(url, out):
    found = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", out)
    statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", out)
    if not found or not statuses or int(statuses.group(1)) == 0:
        sys.exit(f"{url}: {out}")
    failed = sum(map(int, found.groups()[1:3])) + sum(map(int, statuses.groups()[1:]))
    if failed:
        sys.exit(f"{url}: {out}")
    return int(found.group(1)), failed


def own(ground, seconds, *words):
    """One of clients.py."""
    out = ground.client([sys.executable, os.path.join(HERE, "clients.py"), *map(str, words)], seconds)
    return {"failed": 0, **json.loads(out.splitlines()[-1])}


class Reloading:
    """Reloads a proxy in the middle of each second, while something else is done."""

    def __init__(self, proxy, seconds):
        moments = [0.5 + second for second in range(int(seconds))] or [seconds / 2]
        self.timers = [threading.Timer(moment, proxy.reload) for moment in moments]

    def __enter__(self):
        for timer in self.timers:
            timer.start()

    def __exit__(self, *_):
        for timer in self.timers:
            timer.join()
