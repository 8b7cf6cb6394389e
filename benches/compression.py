#!/usr/bin/env python3
"""What making answers smaller costs: Portcullis beside nginx (gzip, and Debian's brotli module) and HAProxy, interleaved.

    cargo build --release --bins
    benches/compression.py [--case NAME,NAME] [--only NAME,NAME] [--levels gzip=1,5 ...] [--rounds N] [--seconds S]
                           [--binary PATH]

Needs Linux with two cores and Debian's nginx-light, libnginx-mod-http-brotli-filter, haproxy, wrk and openssl; everything
stays on loopback. As in benches/compare/run each proxy is pinned to core 0 with one thread, the origin (nginx) and the load to
core 1, and the proxy's own CPU time is divided by the requests answered in that slice. Debian has no zstd module for nginx.
HAProxy's gzip (libslz) has one level. The bodies are made from a seed, so they are the same on every machine.

`json` is 32 KiB of JSON, `text` 1 MiB of text, both as they come from the origin each time. Printed are medians over the
rounds: the size of the body as a share of what it was, CPU time of a request, in brackets the median of its ratios to
nginx's gzip 5 in the same round, and MiB of content a second of CPU time. `none` is the proxy without compression.

`hits` is the same for what is stored: Portcullis keeps it in the coding, nginx codes it anew each time.

`others` has two threads on both cores, which it shares with origin and load: twenty clients ask for 200 bytes that nobody
makes smaller, 400 times a second in all, while eight connections ask for nothing but `text`. Printed are their percentiles,
from when a request was due, and how many large answers there were meanwhile.
"""
import argparse
import asyncio
import http.client
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import namedtuple

from cache import wrk
from running import RELEASE, Bench, cpu_ns, free_port, json_of

MODULE = "/usr/lib/nginx/modules/ngx_http_brotli_filter_module.so"
TYPES = "application/json text/plain"
BODIES = {"json": 32 << 10, "text": 1 << 20}
LEVELS = {"gzip": [1, 5, 6, 9], "br": [1, 4, 6], "zstd": [1, 3, 6, 9]}
SPEAKS = {"portcullis": ("gzip", "br", "zstd"), "nginx": ("gzip", "br"), "haproxy": ("gzip",)}
BESIDE = ("nginx", "gzip", 5)
CASES = ("json", "text", "hits", "others")
# What `wrk` of benches/cache.py wants to know of a case.
Load = namedtuple("Load", "path connections keys", defaults=[1])


def text_of(length):
    """Words, of which few are frequent and most are rare, in sentences."""
    chance = random.Random(6)
    words = ["".join(chance.choices("etaoinshrdlucmfwyp", k=chance.randint(2, 10))) for _ in range(8000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    drawn = iter(chance.choices(words, weights, k=length // 3))
    sentences = []
    size = 0
    while size < length:
        sentence = " ".join(next(drawn) for _ in range(chance.randint(5, 20))).capitalize() + ".\n"
        sentences.append(sentence)
        size += len(sentence)
    return "".join(sentences)[:length]


class Compressors(Bench):
    """An origin with the bodies, and proxies with a path for each coding and level before it."""

    def __init__(self, folder, memory, binary, levels):
        self.memory, self.binary = memory, binary
        self.words = ["none", *(f"{coding}-{level}" for coding in levels for level in levels[coding])]
        super().__init__(folder)

    def start_origin(self):
        for name, content in (("json", json_of(BODIES["json"])), ("text", text_of(BODIES["text"])), ("small", "x" * 200)):
            with open(os.path.join(self.folder, name), "w") as file:
                file.write(content)
        conf = self.write("origin.conf", f"""
user root; daemon off; worker_processes 1; pid {self.folder}/origin.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; sendfile on;
  server {{ listen 127.0.0.1:{self.origin} backlog=4096; root {self.folder}; add_header Cache-Control "max-age=3600";
    location = /json {{ default_type application/json; }}
    location = /text {{ default_type text/plain; }}
    location = /small {{ default_type application/octet-stream; }} }} }}""")
        self.pinned(1, ["nginx", "-c", conf], self.origin)

    def start(self, name, cores="0", threads=1):
        plain = free_port()
        return plain, self.pinned(cores, getattr(self, name)(plain, threads), plain)

    def portcullis(self, plain, threads):
        def routes(prefix, more):
            for word in self.words:
                coding, _, level = word.partition("-")
                compress = f", compress: {{ algorithms: [{coding}], levels: {{ {coding}: {level} }} }}" if level else ""
                yield (f"  - {{ match: {{ path: /{prefix}{word}/* }}, rewrite: {{ strip_prefix: /{prefix}{word} }}, "
                       f"upstream: app{compress}{more} }}")

        conf = self.write(f"portcullis-{threads}.yaml", "\n".join([f"""
server: {{ threads: {threads} }}
cache: {{ size: 32MiB }}
listeners: [{{ address: "127.0.0.1:{plain}", limits: {{ requests_per_connection: 1000000000 }} }}]
upstreams: {{ app: {{ backends: ["127.0.0.1:{self.origin}"] }} }}
admin: {{ address: none }}
log: {{ access: none, dashboard: none }}
routes:""", *routes("", ""), *routes("hit/", ", cache: {}")]) + "\n")
        return [self.binary, "run", "-c", conf]

    def nginx(self, plain, threads):
        def location(prefix, word, more):
            coding, _, level = word.partition("-")
            name = {"gzip": "gzip", "br": "brotli"}.get(coding)
            code = (f"{name} on; {name}_comp_level {level}; {name}_types {TYPES}; {name}_min_length 1024;" if name else "")
            return f"location /{prefix}{word}/ {{ proxy_pass http://app/; {code} {more} }}"

        words = [word for word in self.words if not word.startswith("zstd")]
        stored = "proxy_cache c; proxy_cache_key $scheme$http_host$request_uri;"
        locations = [location("", word, "") for word in words] + [location("hit/", word, stored) for word in words]
        conf = self.write(f"nginx-{threads}.conf", f"""
load_module {MODULE};
user root; daemon off; worker_processes {threads}; pid {self.folder}/nginx-{threads}.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; sendfile on; tcp_nopush on;
  proxy_cache_path {self.memory}/nginx-{threads} levels=1:2 keys_zone=c:16m max_size=32m inactive=1h use_temp_path=off;
  proxy_temp_path {self.memory}/temp-{threads};
  upstream app {{ server 127.0.0.1:{self.origin}; keepalive 256; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{plain} backlog=4096; proxy_http_version 1.1; proxy_set_header Connection "";
    {" ".join(locations)} }} }}""")
        return ["nginx", "-c", conf]

    def haproxy(self, plain, threads):
        conf = self.write(f"haproxy-{threads}.cfg", f"""
global
  nbthread {threads}
  maxconn 8000
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 1s
frontend front
  bind 127.0.0.1:{plain}
  use_backend plain if {{ path_beg /none/ }}
  default_backend coded
backend plain
  http-request replace-path /[^/]*/(.*) /\\1
  http-reuse always
  server one 127.0.0.1:{self.origin}
backend coded
  http-request replace-path /[^/]*/(.*) /\\1
  http-reuse always
  compression algo gzip
  compression type {TYPES}
  server one 127.0.0.1:{self.origin}
""")
        return ["haproxy", "-f", conf, "-db"]


def fetch(port, path, coding):
    """The body as it is on the wire, which must be in this coding; `none` is in none."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        client.request("GET", path, headers={} if coding == "none" else {"Accept-Encoding": coding})
        answer = client.getresponse()
        body = answer.read()
        got = answer.getheader("Content-Encoding", "none")
        if (answer.status, got) != (200, coding):
            sys.exit(f"{path}: {answer.status}, in {got}")
        return body
    finally:
        client.close()


def entries(names, levels):
    """Everything that is measured: a proxy, a coding, a level."""
    for name in names:
        yield name, "none", 0
        for coding in SPEAKS[name]:
            for level in levels.get(coding, [])[:1 if name == "haproxy" else None]:
                yield name, coding, level


def path_of(prefix, coding, level, body):
    return f"/{prefix}{coding}/{body}" if coding == "none" else f"/{prefix}{coding}-{level}/{body}"


def load(port, path, coding, connections, seconds):
    """Requests answered in one slice."""
    fields = [] if coding == "none" else ["-H", f"Accept-Encoding: {coding}"]
    answered = wrk(f"http://127.0.0.1:{port}{path}", Load(path, connections), 0, seconds, fields=fields)[0]
    return answered or sys.exit(f"{path}: nothing was answered within {seconds} s")


def measure_sizes(bench, body, prefix, args):
    """CPU time and size of each, in rounds of which each begins with another one."""
    started = {name: bench.start(name) for name in args.only}
    all_of_them = list(entries(args.only, args.levels))
    share, cpu = {}, {entry: [] for entry in all_of_them}
    with open(os.path.join(bench.folder, body), "rb") as file:
        content = file.read()
    for entry in all_of_them:
        name, coding, level = entry
        for _ in range(3):
            got = fetch(started[name][0], path_of(prefix, coding, level, body), coding)
        if coding in ("none", "gzip") and (zlib.decompress(got, 31) if coding == "gzip" else got) != content:
            sys.exit(f"{entry}: another content")
        share[entry] = len(got) / len(content)
    for turn in range(args.rounds):
        shift = turn * 7 % len(all_of_them)
        for entry in all_of_them[shift:] + all_of_them[:shift]:
            name, coding, level = entry
            port, pid = started[name]
            before = cpu_ns(pid)
            answered = load(port, path_of(prefix, coding, level, body), coding, 8, args.seconds)
            cpu[entry].append((cpu_ns(pid) - before) / answered / 1e9)
    for entry in sorted(all_of_them, key=lambda entry: (entry[1], entry[2], entry[0])):
        name, coding, level = entry
        middle = statistics.median(cpu[entry])
        ratio = ""
        if BESIDE in cpu and entry != BESIDE:
            ratio = f" ({statistics.median(a / b for a, b in zip(cpu[entry], cpu[BESIDE])):.2f})"
        word = coding if coding == "none" or name == "haproxy" else f"{coding} {level}"
        speed = f"{len(content) / middle / (1 << 20):.0f}" if middle else ""
        print(f"| {prefix}{body} | {word} | {name} | {100 * share[entry]:.1f}% | {middle * 1e6:.0f}{ratio} | {speed} |", flush=True)
    bench.stop(spared=1)  # the origin


async def paced(port, path, seconds, per_second=400, clients=20):
    """How long each of these requests took, in milliseconds, from when it was due, in the order of how long."""
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    took = []

    async def client(first):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(first, int(seconds * per_second), clients):
            due = began + number / per_second
            # One that waited for the one before counts its waiting too.
            await asyncio.sleep(max(0, due - time.monotonic()))
            writer.write(request)
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(200)
            took.append((time.monotonic() - due) * 1000)
        writer.close()

    began = time.monotonic()
    await asyncio.gather(*map(client, range(clients)))
    return sorted(took)


def measure_others(bench, args):
    """What small requests wait for while large answers are made smaller."""
    wanted = [("none", 0), ("gzip", 5), ("br", 4), ("zstd", 3)]
    names = [name for name in args.only if name != "haproxy"]
    started = {name: bench.start(name, "0,1", 2) for name in names}
    runs = [(name, coding, level) for name in names for coding, level in wanted
            if coding == "none" or (coding in SPEAKS[name] and level in args.levels.get(coding, []))]
    results = {run: [] for run in runs}
    for turn in range(args.rounds):
        for name, coding, level in runs[turn % len(runs):] + runs[:turn % len(runs)]:
            port = started[name][0]
            path = path_of("", coding, level, "text")
            fields = [] if coding == "none" else ["-H", f"Accept-Encoding: {coding}"]
            seconds = max(3, args.seconds)
            large = subprocess.Popen(["taskset", "-c", "0,1", "wrk", "-c", "8", "-t", "1", "-d", f"{seconds + 2}s", *fields,
                                      f"http://127.0.0.1:{port}{path}"], stdout=subprocess.PIPE, text=True)
            time.sleep(0.5)
            took = asyncio.run(paced(port, "/none/small", seconds))
            rate = float(large.communicate(timeout=60)[0].split("Requests/sec:")[1].split()[0])
            results[name, coding, level].append((*(took[len(took) * part // 1000] for part in (500, 990, 999)), rate))
    print("\n| Large answers | Proxy | Small: p50 ms | p99 ms | p99.9 ms | Large answers a second |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (name, coding, level), slices in results.items():
        middle = [statistics.median(column) for column in zip(*slices)]
        word = coding if coding == "none" else f"{coding} {level}"
        print(f"| {word} | {name} | {middle[0]:.2f} | {middle[1]:.2f} | {middle[2]:.2f} | {middle[3]:.0f} |", flush=True)
    bench.stop(spared=1)  # the origin


def levels_of(words):
    levels = {coding: list(known) for coding, known in LEVELS.items()}
    for word in words:
        coding, _, numbers = word.partition("=")
        levels[coding] = [int(number) for number in numbers.split(",") if number]
    return levels


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SPEAKS))
    parser.add_argument("--case", default=",".join(CASES))
    parser.add_argument("--levels", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--binary", default=os.path.join(RELEASE, "portcullis"))
    args = parser.parse_args()
    args.only, cases, args.levels = args.only.split(","), args.case.split(","), levels_of(args.levels)
    if unknown := (set(args.only) - set(SPEAKS)) | (set(cases) - set(CASES)) | (set(args.levels) - set(LEVELS)):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    missing = [program for program in ("nginx", "haproxy", "wrk", "openssl") if not shutil.which(program)]
    if missing or not os.path.exists(MODULE):
        sys.exit(f"missing: {', '.join(missing) or MODULE}")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        bench = Compressors(folder, memory, args.binary, args.levels)
        try:
            if set(cases) - {"others"}:
                print("| Body | Coding | Proxy | Size | CPU us per request | MiB/s |")
                print("| --- | --- | --- | --- | --- | --- |")
            for body in (body for body in BODIES if body in cases):
                measure_sizes(bench, body, "", args)
            if "hits" in cases:
                stored = argparse.Namespace(**{**vars(args), "only": [name for name in args.only if name != "haproxy"]})
                for body in BODIES:
                    measure_sizes(bench, body, "hit/", stored)
            if "others" in cases:
                measure_others(bench, args)
        finally:
            bench.stop()


if __name__ == "__main__":
    main()
