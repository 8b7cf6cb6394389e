#!/usr/bin/env python3
"""What a hit costs: Portcullis beside nginx's proxy_cache, Varnish and HAProxy's cache, in interleaved runs.

    cargo build --release --bins
    benches/cache.py [--only NAME,NAME] [--case NAME,NAME] [--rounds N] [--seconds S] [--binary PATH]

Needs Linux with two cores and Debian's nginx-light, varnish, haproxy, wrk, nghttp2-client and openssl; everything stays
on loopback. As in benches/compare/run each proxy is pinned to core 0 with one thread (Varnish: one pool), the origin (nginx)
and the load to core 1, and the proxy's own CPU time is divided by the requests answered in that slice. Each has 32 MiB
for its cache, in memory: nginx has it on /dev/shm, where a file takes whole pages. `nginx-open` is nginx with
open_file_cache, which spares it the opening of a file per hit and which few switch on.

Printed are medians over the rounds, in brackets the median of the ratios to nginx in the same round. Requests per second
and p99 are those of a proxy that is asked for all it can do, and the origin's requests per request say how much was
answered from memory: 0 is everything.

The case `threads` is Portcullis alone with one and two threads on both cores, where load and origin want the same cores.
"""
import argparse
import http.client
import os
import re
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
from collections import namedtuple

from running import HERE, RELEASE, Bench, cpu_ns, free_port

SIZE_MIB = 32
# `path` of a case with many keys is what each of them begins with.
Case = namedtuple("Case", "title path protocol connections peers keys", defaults=[1])
EVERYBODY = ("portcullis", "nginx", "nginx-open", "varnish", "haproxy")
TLS = ("portcullis", "nginx", "nginx-open", "haproxy")
LARGE = ("portcullis", "nginx", "nginx-open", "varnish")
CASES = {
    "1k": Case("1 KiB hit, H1", "/1k", "h1", 32, EVERYBODY),
    "1k-h2": Case("1 KiB hit, TLS 1.3, H2, 16 streams", "/1k", "h2", 4, TLS),
    "1m": Case("1 MiB hit, H1", "/1m", "h1", 32, LARGE),
    "1m-h2": Case("1 MiB hit, TLS 1.3, H2, 16 streams", "/1m", "h2", 4, TLS[:3]),
    "zipf": Case("1 KiB, Zipf over 100,000 URLs, H1", "/many/", "h1", 32, EVERYBODY, 100_000),
    "revalidate": Case("1 KiB, max-age=0 with ETag, Zipf over 1,000 URLs, H1", "/validated?", "h1", 32, EVERYBODY, 1000),
}
Slice = namedtuple("Slice", "cpu rate p99 fetched")


class Caches(Bench):
    """An origin whose answers may be stored, and caches before it."""

    def __init__(self, folder, memory, binary):
        self.memory, self.binary = memory, binary
        super().__init__(folder)

    def start_origin(self):
        for name, size in (("1k", 1024), ("1m", 1 << 20), ("validated", 1024)):
            with open(os.path.join(self.folder, name), "w") as file:
                file.write("x" * size)
        conf = self.write("origin.conf", f"""
user root; daemon off; worker_processes 1; pid {self.folder}/origin.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; sendfile on;
  server {{ listen 127.0.0.1:{self.origin} backlog=4096; root {self.folder}; add_header Cache-Control "max-age=3600";
    location = /validated {{ add_header Cache-Control "max-age=0"; }}
    location /many/ {{ return 200 "{"x" * 1024}"; }}
    location = /counted {{ stub_status; }} }} }}""")
        self.pinned(1, ["nginx", "-c", conf], self.origin)

    def fetched(self):
        """How many requests the origin has had, this one included."""
        status = get("http", self.origin, "/counted").decode()
        return int(re.search(r"(\d+)\s+(\d+)\s+(\d+)\s*$", status, re.M).group(3))

    def start(self, name, cores="0"):
        plain, secure = free_port(), free_port()
        command = getattr(self, name.replace("-", "_"))(plain, secure)
        return plain, secure, self.pinned(cores, command, plain)

    def portcullis(self, plain, secure, threads=1):
        conf = self.write(f"portcullis-{threads}.yaml", f"""
server: {{ threads: {threads} }}
cache: {{ size: {SIZE_MIB}MiB }}
listeners:
  - {{ address: "127.0.0.1:{plain}", limits: {{ requests_per_connection: 1000000000 }} }}
  - address: "127.0.0.1:{secure}"
    tls: {{ certificates: [{{ cert: cert.pem, key: key.pem }}] }}
    limits: {{ requests_per_connection: 1000000000 }}
upstreams: {{ app: {{ backends: ["127.0.0.1:{self.origin}"] }} }}
routes: [{{ upstream: app, cache: {{}} }}]
admin: {{ address: none }}
log: {{ access: none, dashboard: none }}
""")
        return [self.binary, "run", "-c", conf]

    def portcullis_2(self, plain, secure):
        return self.portcullis(plain, secure, threads=2)

    def nginx(self, plain, secure, name="nginx", more=""):
        conf = self.write(f"{name}.conf", f"""
user root; daemon off; worker_processes 1; pid {self.folder}/{name}.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; sendfile on; tcp_nopush on; {more}
  proxy_cache_path {self.memory}/{name} levels=1:2 keys_zone=c:16m max_size={SIZE_MIB}m inactive=1h use_temp_path=off
                   manager_sleep=50ms;
  upstream app {{ server 127.0.0.1:{self.origin}; keepalive 256; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{plain} backlog=4096; listen 127.0.0.1:{secure} ssl http2;
    ssl_certificate {self.cert}; ssl_certificate_key {self.key}; ssl_protocols TLSv1.3;
    location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_cache c; proxy_cache_key $scheme$http_host$request_uri; proxy_cache_revalidate on; }} }} }}""")
        return ["nginx", "-c", conf]

    def nginx_open(self, plain, secure):
        return self.nginx(plain, secure, "nginx-open", "open_file_cache max=20000 inactive=60s;")

    def varnish(self, plain, _secure):
        # Left to itself, Varnish does not store what is stale at once; so it is told to, and to ask every time.
        conf = self.write("varnish.vcl", f"""vcl 4.1;
backend app {{ .host = "127.0.0.1"; .port = "{self.origin}"; }}
sub vcl_backend_response {{
  if (bereq.url ~ "^/validated") {{ set beresp.ttl = 0s; set beresp.grace = 0s; set beresp.keep = 1h; return (deliver); }}
}}
""")
        settings = ("default_ttl=0", "default_grace=0", "thread_pools=1", "thread_pool_min=64", "feature=+http2")
        return ["varnishd", "-F", "-j", "none", "-a", f"127.0.0.1:{plain}", "-f", conf, "-n", f"{self.folder}/varnish",
                "-s", f"malloc,{SIZE_MIB}m", *(word for setting in settings for word in ("-p", setting))]

    def haproxy(self, plain, secure):
        conf = self.write("haproxy.cfg", f"""
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 1s
cache small
  total-max-size {SIZE_MIB}
  max-object-size 65536
  max-age 3600
frontend front
  bind 127.0.0.1:{plain}
  bind 127.0.0.1:{secure} ssl crt {self.folder}/both.pem alpn h2,http/1.1
  filter cache small
  http-request cache-use small
  http-response cache-store small
  default_backend app
backend app
  http-reuse always
  server one 127.0.0.1:{self.origin}
""")
        return ["haproxy", "-f", conf, "-db"]


def get(scheme, port, path):
    if scheme == "https":
        client = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=ssl._create_unverified_context())
    else:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        client.request("GET", path)
        return client.getresponse().read()
    finally:
        client.close()


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}[unit]


def wrk(url, case, seed, seconds, threads="1", fields=()):
    """Requests answered, requests a second, and p99 in milliseconds."""
    zipf = ["-s", os.path.join(HERE, "zipf.lua")] if case.keys > 1 else []
    words = ["--", str(seed), case.path, str(case.keys)] if zipf else []
    out = run(["wrk", "--latency", "-c", str(case.connections), "-t", threads, "-d", f"{seconds}s", *fields, *zipf, url, *words],
              "0,1" if threads != "1" else "1", seconds)
    if "Non-2xx" in out:
        sys.exit(f"{url}: {out}")
    p99 = milliseconds(re.search(r"^\s+99%\s+(\S+)", out, re.M).group(1))
    return int(re.search(r"(\d+) requests in", out).group(1)), float(re.search(r"Requests/sec:\s+(\S+)", out).group(1)), p99


def h2load(url, case, folder, seconds):
    """The same over HTTP/2; p99 is read from a line per request."""
    log = os.path.join(folder, "h2load.log")
    if os.path.exists(log):
        os.remove(log)
    out = run(["h2load", "-c", str(case.connections), "-m", "16", "-t", "1", "-D", str(seconds), f"--log-file={log}", url],
              "1", seconds)
    answered = int(re.search(r"(\d+) succeeded", out).group(1))
    with open(log) as lines:
        took = sorted(int(line.split()[2]) for line in lines)
    return answered, answered / seconds, took[len(took) * 99 // 100] / 1000


def run(command, cores, seconds):
    command = ["taskset", "-c", cores, *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30).stdout


def measure(bench, case, started, seed, seconds, threads="1"):
    plain, secure, pid = started
    before, fetched = cpu_ns(pid), bench.fetched()
    if case.protocol == "h2":
        answered, rate, p99 = h2load(f"https://127.0.0.1:{secure}{case.path}", case, bench.folder, seconds)
    else:
        answered, rate, p99 = wrk(f"http://127.0.0.1:{plain}{case.path}", case, seed, seconds, threads)
    cpu = (cpu_ns(pid) - before) / answered / 1000
    return Slice(cpu, rate, p99, (bench.fetched() - fetched - 1) / answered)


def warm(case, started, seconds):
    """What can be stored is stored before the first slice."""
    plain, secure, _ = started
    scheme, port = ("https", secure) if case.protocol == "h2" else ("http", plain)
    for _ in range(3):
        get(scheme, port, case.path)
    if case.keys > 1:
        # Longer than a slice: a cache that has yet to fill is no cache to measure.
        wrk(f"http://127.0.0.1:{plain}{case.path}", case, 0, max(5, seconds))


def rounds(bench, case, started, count, seconds, threads="1"):
    """The slices of each, where each round begins with another one, so that none always follows the same."""
    names = list(started)
    slices = {name: [] for name in names}
    for name in names:
        warm(case, started[name], seconds)
    for turn in range(count):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            slices[name].append(measure(bench, case, started[name], turn + 1, seconds, threads))
    return slices


def show(title, slices, beside):
    for name, own in slices.items():
        middle = Slice(*(statistics.median(column) for column in zip(*own)))
        ratio = ""
        if beside in slices and name != beside:
            ratio = f" ({statistics.median(a.cpu / b.cpu for a, b in zip(own, slices[beside])):.2f})"
        cells = [f"{middle.cpu:.1f}{ratio}", f"{middle.rate:,.0f}", f"{middle.p99:.2f}", f"{middle.fetched:.3f}"]
        print(f"| {title} | {name} | {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(EVERYBODY))
    parser.add_argument("--case", default=",".join([*CASES, "threads"]))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--binary", default=os.path.join(RELEASE, "portcullis"))
    args = parser.parse_args()
    names, cases = args.only.split(","), args.case.split(",")
    unknown = (set(names) - set(EVERYBODY)) | (set(cases) - set(CASES) - {"threads"})
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    programs = ["nginx", "wrk", "h2load", "openssl"]
    programs += [program for name, program in (("haproxy", "haproxy"), ("varnish", "varnishd")) if name in names]
    if missing := [program for program in programs if not shutil.which(program)]:
        sys.exit(f"missing: {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        bench = Caches(folder, memory, args.binary)
        try:
            print("| Case | Cache | CPU us per request | Requests/s | p99 ms | Origin requests per request |")
            print("| --- | --- | --- | --- | --- | --- |")
            started = {name: bench.start(name) for name in names}
            for case in (CASES[name] for name in cases if name != "threads"):
                asked = {name: started[name] for name in names if name in case.peers}
                show(case.title, rounds(bench, case, asked, args.rounds, args.seconds), "nginx")
            if "threads" in cases and "portcullis" in names:
                asked = {name: bench.start(name, "0,1") for name in ("portcullis", "portcullis-2")}
                case = CASES["1k"]._replace(connections=64)
                slices = rounds(bench, case, asked, args.rounds, args.seconds, threads="2")
                slices = {title: slices[name] for title, name in (("1 thread", "portcullis"), ("2 threads", "portcullis-2"))}
                show("1 KiB hit, H1, nothing pinned", slices, "1 thread")
        finally:
            bench.stop()


if __name__ == "__main__":
    main()
