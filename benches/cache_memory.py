#!/usr/bin/env python3
"""A million different objects through a cache of 64 MiB: how much memory does the process take?

    cargo build --release --bins
    benches/cache_memory.py [--objects N] [--limit SECONDS] [--size MIB] [--eviction WORD] [--binary PATH]

Needs Linux and Debian's nginx-light and wrk; everything stays on loopback. The origin (nginx) answers each path with an
object of 1 to 4 KiB that may be stored for an hour, and each path is asked for once. Printed are the resident memory of
the process (VmRSS, from /proc) before the first request, every few seconds, and after, the highest it ever had (VmHWM),
and what the program itself says about its cache. It ends after so many objects or seconds, whatever comes first; the exit
code is 1 if the process grew by more than 1.25 times the cache's size plus 32 MiB.
"""
import argparse
import http.client
import os
import re
import subprocess
import sys
import tempfile
import time

from running import HERE, RELEASE, Programs, free_port


class Memory(Programs):
    def __init__(self, folder, binary, size_mib, eviction):
        super().__init__(folder)
        self.origin, self.port = free_port(), free_port()
        self.start_origin()
        self.said = open(os.path.join(folder, "said.txt"), "w+")
        conf = self.write("portcullis.yaml", f"""
server: {{ threads: 2 }}
cache: {{ size: {size_mib}MiB, eviction: {eviction} }}
listeners:
  - {{ address: "127.0.0.1:{self.port}", limits: {{ requests_per_connection: 1000000000 }} }}
upstreams: {{ app: {{ backends: ["127.0.0.1:{self.origin}"] }} }}
routes: [{{ upstream: app, cache: {{}} }}]
admin: {{ address: none }}
log: {{ access: none, dashboard: 5s }}
""")
        self.proxy = self.spawn([binary, "run", "-c", conf], self.port, errors=subprocess.STDOUT, out=self.said)

    def start_origin(self):
        kib = "x" * 1024
        bodies = "\n".join(f'    location /{count}/ {{ return 200 "{"$kib" * count}$uri"; }}' for count in range(1, 5))
        conf = self.write("origin.conf", f"""
user root; daemon off; worker_processes 1; pid {self.folder}/origin.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  server {{ listen 127.0.0.1:{self.origin} backlog=4096; add_header Cache-Control "max-age=3600"; set $kib "{kib}";
{bodies} }} }}""")
        self.spawn(["nginx", "-c", conf], self.origin)

    def resident(self):
        """VmRSS and VmHWM in MiB."""
        if self.proxy.poll() is not None:
            sys.exit(f"the proxy ended with {self.proxy.returncode}:\n{self.words()}")
        status = open(f"/proc/{self.proxy.pid}/status").read()
        return [int(re.search(rf"{name}:\s+(\d+) kB", status).group(1)) / 1024 for name in ("VmRSS", "VmHWM")]

    def words(self):
        self.said.flush()
        return open(self.said.name).read()

    def is_stored(self, path):
        """Whether the second of two requests has an Age, as only a stored answer has."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            for _ in range(2):
                client.request("GET", path)
                answer = client.getresponse()
                answer.read()
            return answer.getheader("Age") is not None
        finally:
            client.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--eviction", choices=["lru", "s3_fifo"], default="lru")
    parser.add_argument("--binary", default=os.path.join(RELEASE, "portcullis"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        memory = Memory(folder, args.binary, args.size, args.eviction)
        try:
            sys.exit(watch(memory, args))
        finally:
            memory.stop()
            memory.said.close()


def watch(memory, args):
    before, _ = memory.resident()
    print(f"before: {before:.1f} MiB", flush=True)
    began = time.monotonic()
    load = memory.spawn(["timeout", str(args.limit + 5), "wrk", "-t", "1", "-c", "16", "-d", f"{args.limit}s",
                         "-s", os.path.join(HERE, "distinct.lua"), f"http://127.0.0.1:{memory.port}/", "--",
                         str(args.objects)], out=subprocess.PIPE)
    while load.poll() is None:
        try:
            load.wait(5)
        except subprocess.TimeoutExpired:
            print(f"after {time.monotonic() - began:.0f} s: {memory.resident()[0]:.1f} MiB", flush=True)
    took, out = time.monotonic() - began, load.stdout.read().decode()
    answered = int(re.search(r"(\d+) requests in", out).group(1))
    if "Non-2xx" in out:
        sys.exit(out)
    stored = memory.is_stored("/1/asked-twice")
    # Time for one more table on the dashboard.
    time.sleep(6)
    after, peak = memory.resident()
    allowed = before + 1.25 * args.size + 32
    print(f"{answered} requests for different objects in {took:.0f} s")
    print(f"an object that is asked for twice comes from the store: {'yes' if stored else 'no'}")
    print(f"resident memory: {before:.1f} MiB before, {peak:.1f} MiB at its highest, {after:.1f} MiB after; "
          f"{allowed:.1f} MiB allowed")
    mentioning = [line for line in memory.words().splitlines() if "cache" in line.lower()]
    for line in mentioning[-3:]:
        print(f"it says: {line}")
    return 0 if stored and peak <= allowed else 1


if __name__ == "__main__":
    main()
