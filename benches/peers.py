#!/usr/bin/env python3
"""CPU time per request of Portcullis beside a bare Pingora proxy, nginx and HAProxy, in interleaved runs.

    cargo build --release --bins --examples
    benches/peers.py [--rounds N] [--seconds S] [--only NAME,NAME] [--case NAME,NAME]

Needs Linux with two cores and Debian's nginx-light, haproxy, wrk, nghttp2-client and openssl. Everything stays on
loopback. Each proxy is pinned to core 0 with one thread; the origin (nginx) and the load are on core 1. What is measured
is the proxy's own CPU time (user and system, from /proc) divided by the requests that were answered in that slice, so a
busy machine disturbs it less than a rate. Printed are medians over the rounds, and the median of the ratios to the bare
proxy in the same round.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile

from running import RELEASE, Programs, free_port

TICK = os.sysconf("SC_CLK_TCK")
CASES = {"h1": "H1, small", "tls": "TLS 1.3, H1, small", "h2": "TLS 1.3, H2, small, 16 streams",
         "h1-page": "H1, a browser's page", "tls-page": "TLS 1.3, H1, a browser's page",
         "h2-page": "TLS 1.3, H2, a browser's page, 16 streams", "h1-64k": "H1, 64 KiB"}

# What a browser sends with a request for a page, shortened a little; the answer has 4 KiB and ten fields.
BROWSER = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.8,de;q=0.6",
    "Cache-Control": "max-age=0",
    "Cookie": "session=7f3c1d9a2b6e4f508c1d9a2b6e4f5081; theme=dark",
    "Referer": "https://localhost/before",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
}
PAGE_FIELDS = {"Cache-Control": "private, max-age=60", "X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff",
               "Referrer-Policy": "same-origin", "Content-Language": "en", "Vary": "Accept-Encoding"}


def cpu_seconds(pid):
    """User and system time of a process and its children that are alive."""
    total = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = open(f"/proc/{name}/stat").read().rsplit(") ", 1)[1].split()
            except (OSError, IndexError):
                continue
            if int(name) == pid or int(fields[1]) == pid:
                total += int(fields[11]) + int(fields[12])
    return total / TICK


class Bench(Programs):
    def __init__(self, folder):
        super().__init__(folder)
        self.cert, self.key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", self.key, "-out", self.cert, "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
        combined = os.path.join(folder, "both.pem")
        with open(combined, "w") as both:
            both.write(open(self.cert).read() + open(self.key).read())
        self.origin = free_port()
        self.start_origin()

    def pinned(self, core, command, port):
        return self.spawn(["taskset", "-c", str(core), *command], port).pid

    def start_origin(self):
        with open(os.path.join(self.folder, "64k"), "w") as file:
            file.write("x" * 65536)
        with open(os.path.join(self.folder, "page"), "w") as file:
            file.write("x" * 4096)
        page_fields = " ".join(f'add_header {name} "{value}";' for name, value in PAGE_FIELDS.items())
        conf = self.write("origin.conf", f"""
user root; daemon off; worker_processes 1; pid {self.folder}/origin.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; sendfile on;
  server {{ listen 127.0.0.1:{self.origin} backlog=4096; root {self.folder};
    location = /page {{ {page_fields} }}
    location = / {{ return 200 "hello world\\n"; }} }} }}""")
        self.pinned(1, ["nginx", "-c", conf], self.origin)

    def start(self, name):
        plain, secure = free_port(), free_port()
        command = getattr(self, name)(plain, secure)
        return plain, secure, self.pinned(0, command, plain)

    def bare(self, plain, secure):
        return [os.path.join(RELEASE, "examples", "bare"), f"127.0.0.1:{self.origin}", str(plain), str(secure),
                self.cert, self.key]

    def portcullis(self, plain, secure):
        conf = self.write("portcullis.yaml", f"""
server: {{ threads: 1 }}
listeners:
  - {{ address: "127.0.0.1:{plain}", limits: {{ requests_per_connection: 1000000000 }} }}
  - address: "127.0.0.1:{secure}"
    tls: {{ certificates: [{{ cert: cert.pem, key: key.pem }}] }}
    limits: {{ requests_per_connection: 1000000000 }}
upstreams: {{ app: {{ backends: ["127.0.0.1:{self.origin}"] }} }}
routes: [{{ upstream: app }}]
admin: {{ address: none }}
log: {{ access: none, dashboard: none }}
""")
        return [os.path.join(RELEASE, "portcullis"), "run", "-c", conf]

    def nginx(self, plain, secure):
        conf = self.write("nginx.conf", f"""
daemon off; worker_processes 1; pid {self.folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  upstream app {{ server 127.0.0.1:{self.origin}; keepalive 256; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{plain} backlog=4096; listen 127.0.0.1:{secure} ssl http2;
    ssl_certificate {self.cert}; ssl_certificate_key {self.key}; ssl_protocols TLSv1.3;
    location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; }} }} }}""")
        return ["nginx", "-c", conf]

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
  option forwardfor
frontend front
  bind 127.0.0.1:{plain}
  bind 127.0.0.1:{secure} ssl crt {self.folder}/both.pem alpn h2,http/1.1
  default_backend app
backend app
  http-reuse always
  server one 127.0.0.1:{self.origin}
""")
        return ["haproxy", "-f", conf, "-db"]


def load(case, plain, secure, seconds):
    """Requests answered in one slice."""
    protocol, _, what = case.partition("-")
    path = f"/{what}"
    fields = [part for name, value in BROWSER.items() for part in ("-H", f"{name}: {value}")] if what == "page" else []
    url = f"http://127.0.0.1:{plain}{path}" if protocol == "h1" else f"https://127.0.0.1:{secure}{path}"
    if protocol == "h2":
        command = ["h2load", "-c", "4", "-m", "16", "-t", "1", "-D", str(seconds), *fields, url]
        pattern = r"(\d+) succeeded"
    else:
        command = ["wrk", "-c", "32", "-t", "1", "-d", f"{seconds}s", *fields, url]
        pattern = r"(\d+) requests in"
    out = subprocess.run(["taskset", "-c", "1", *command], capture_output=True, text=True, timeout=seconds + 20).stdout
    if "Non-2xx" in out:
        sys.exit(f"{case}: {out}")
    return int(re.search(pattern, out).group(1))


def ratio(results, name):
    """The median over the rounds of the ratio to the bare proxy in the same round."""
    if "bare" not in results:
        return ""
    return f" ({statistics.median(a / b for a, b in zip(results[name], results['bare'])):.2f})"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--only", default="bare,portcullis,nginx,haproxy")
    parser.add_argument("--case", default=",".join(CASES))
    args = parser.parse_args()
    names = args.only.split(",")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder)
        try:
            started = {name: bench.start(name) for name in names}
            print(f"| CPU us per request | {' | '.join(names)} |")
            print("| --- |" + " --- |" * len(names))
            for case in args.case.split(","):
                results = {name: [] for name in names}
                for turn in range(args.rounds):
                    # Each round begins with another one, so that none always follows the same.
                    for name in names[turn % len(names):] + names[:turn % len(names)]:
                        plain, secure, pid = started[name]
                        before = cpu_seconds(pid)
                        answered = load(case, plain, secure, args.seconds)
                        results[name].append((cpu_seconds(pid) - before) / answered * 1e6)
                medians = {name: statistics.median(values) for name, values in results.items()}
                cells = [f"{medians[name]:.1f}{ratio(results, name)}" for name in names]
                print(f"| {CASES[case]} | {' | '.join(cells)} |", flush=True)
        finally:
            bench.stop()


if __name__ == "__main__":
    main()
