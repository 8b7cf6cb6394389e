#!/usr/bin/env python3
"""What it costs a request to be let in: CPU time of the process per request, on a route that asks for nothing and on others.

    cargo build --release
    benches/admission.py [--rounds N] [--seconds S] [--case respond,upstream] [--only all,..] [--binary PATH]

Needs Linux with two cores and Debian's wrk, and nginx-light for `upstream`. One front door has the same route several
times: bare, with an API key, with a rate limit, with a list of 100,000 denied addresses, and with all three. Every request
carries the key, so that what differs is only what is asked. It is pinned to core 0 with one thread; the load, and the origin
in `upstream`, are on core 1. The time is what the scheduler says that its threads ran (/proc/PID/task/*/schedstat, in
nanoseconds). The slices of the routes are interleaved; each round begins with another one. `--only` leaves out the other
routes but the bare one, so that a round is shorter and the machine more the same in it. Printed are the medians, and of
each route the median of the differences to the bare one in the same round, with the quartiles of these; and then the same of
the time outside the kernel (utime of /proc/PID/stat, of all rounds together), because what sending costs depends above all on
whether the load sleeps at that moment.
"""
import argparse
import hashlib
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile

from running import RELEASE, TICK_NS, Programs, cpu_ns, free_port, stat

KEY = "pck_bench000_0123456789abcdef0123456789abcdef"
PARTS = {
    "bare": [],
    "key": ["auth: { api_keys: team }"],
    "limit": ["rate_limits: [{ rate: 1000000/s, key: client_address }]"],
    "list": ["deny: [file:denied]"],
}
PARTS["all"] = [*PARTS["key"], "rate_limits: [{ rate: 1000000/s, key: api_key }]", *PARTS["list"]]


class Admission(Programs):
    def start_origin(self):
        port = free_port()
        conf = self.write("origin.conf", f"""
user root; daemon off; worker_processes 1; pid {self.folder}/origin.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 "hello world\\n"; }} }} }}""")
        self.spawn(["taskset", "-c", "1", "nginx", "-c", conf], port)
        return port

    def start(self, binary, case):
        plain = free_port()
        upstream = self.start_origin() if case == "upstream" else free_port()
        action = "upstream: app" if case == "upstream" else 'respond: { body: "hello world" }'
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        self.write("keys.yaml", f"- {{ name: bench, hash: 'sha256:{digest}' }}\n")
        chance = random.Random(1)
        self.write("denied", "".join(
            f"10.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)}\n" for _ in range(100_000)))
        routes = "".join(
            f"  - name: {name}\n    match: {{ path: /{name} }}\n    {action}\n" + "".join(f"    {line}\n" for line in lines)
            for name, lines in PARTS.items())
        conf = self.write("portcullis.yaml", f"""
server: {{ threads: 1 }}
listeners:
  - {{ address: "127.0.0.1:{plain}", limits: {{ requests_per_connection: 1000000000 }} }}
upstreams: {{ app: {{ backends: ["127.0.0.1:{upstream}"], health_check: none }} }}
keys: {{ team: {{ file: keys.yaml }} }}
routes:
{routes}admin: {{ address: none }}
log: {{ access: none, dashboard: none }}
""")
        return plain, self.spawn(["taskset", "-c", "0", binary, "run", "-c", conf], plain).pid


def load(name, port, seconds):
    """Requests answered in one slice."""
    url = f"http://127.0.0.1:{port}/{name}"
    command = ["wrk", "-c", "32", "-t", "1", "-d", f"{seconds}s", "-H", f"X-API-Key: {KEY}", url]
    out = subprocess.run(["taskset", "-c", "1", *command], capture_output=True, text=True, timeout=seconds + 20).stdout
    if "Non-2xx" in out or "requests in" not in out:
        sys.exit(f"{name}: {out}")
    return int(re.search(r"(\d+) requests in", out).group(1))


def user_us(pid):
    """The CPU time of a process outside the kernel."""
    return int(stat(pid)[11]) * TICK_NS / 1000


def run(bench, case, args):
    port, pid = bench.start(args.binary, case)
    names = [name for name in PARTS if name == "bare" or name in args.only.split(",")]
    for name in names:
        load(name, port, 1)
    spent, user, count = {name: [] for name in names}, dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for turn in range(args.rounds):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            before, before_user = cpu_ns(pid), user_us(pid)
            answered = load(name, port, args.seconds)
            spent[name].append((cpu_ns(pid) - before) / answered / 1000)
            user[name] += user_us(pid) - before_user
            count[name] += answered
    for name in names:
        more = [a - b for a, b in zip(spent[name], spent["bare"])]
        low, middle, high = statistics.quantiles(more, n=4) if len(more) > 1 else more * 3
        cell = "" if name == "bare" else f"{middle:+.2f} ({low:+.2f} to {high:+.2f})"
        outside, bare = user[name] / count[name], user["bare"] / count["bare"]
        more_outside = "" if name == "bare" else f"{outside - bare:+.2f}"
        print(f"| {case} | {name} | {statistics.median(spent[name]):.2f} | {cell} | {outside:.2f} | {more_outside} |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--case", default="respond,upstream")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--binary", default=os.path.join(RELEASE, "portcullis"))
    args = parser.parse_args()
    print("| answered by | asked for | CPU us per request | more than bare | outside the kernel | more than bare |")
    print("| --- | --- | --- | --- | --- | --- |")
    for case in args.case.split(","):
        with tempfile.TemporaryDirectory() as folder:
            bench = Admission(folder)
            try:
                run(bench, case, args)
            finally:
                bench.stop()


if __name__ == "__main__":
    main()
