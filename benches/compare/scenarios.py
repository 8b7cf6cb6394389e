"""The scenarios: what the proxies are told, and what is asked of them."""
import http.client
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Callable

import loads
from ground import HERE, LOAD_CORE, Proxy, settle
from running import resident_kib
from wants import HOSTS, KEY, Wants

# What a browser sends with a request for a page, shortened a little; the answer has ten fields.
BROWSER = (
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-GB,en;q=0.8,de;q=0.6",
    "Cache-Control: max-age=0",
    "Cookie: session=7f3c1d9a2b6e4f508c1d9a2b6e4f5081; theme=dark",
    "Referer: https://localhost/before",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Site: same-origin",
    "Upgrade-Insecure-Requests: 1",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
)
IDLE = (0, 1_000, 10_000)
EVERYBODY = ("portcullis", "profiled", "bare", "nginx", "haproxy", "envoy", "varnish")


@dataclass(frozen=True)
class Load:
    """CPU time of the proxy divided by what it has answered in a slice."""
    title: str
    run: Callable
    wants: Wants = field(default_factory=Wants)
    unit: str = "request"
    # Whether half of what the slowest can do is asked for at a fixed rate, too: how, in words of examples/paced.rs.
    paced: str = ""
    path: str = "/"
    secure: bool = False
    peers: tuple = EVERYBODY

    def peers_of(self, peers):
        return [peer for peer in peers if peer.name in self.peers and peer.can(self.wants)]

    def slice(self, proxy, seconds):
        before = proxy.cpu_ns()
        done = self.run(proxy, self, seconds)
        return {"cpu_us": (proxy.cpu_ns() - before) / done["answered"] / 1000, **done}

    def paced_slice(self, proxy, seconds, rate):
        return loads.paced(proxy, seconds, rate, self.paced, self.path)


@dataclass(frozen=True)
class Once:
    """What is measured on a proxy that was started for it alone."""
    title: str
    measure: Callable
    wants: Wants = field(default_factory=Wants)
    secure: bool = False
    # One in so many rounds: it takes long, and comes out nearly the same each time.
    rarely: int = 1
    peers: tuple = EVERYBODY

    def peers_of(self, peers):
        return [peer for peer in peers if peer.name in self.peers and peer.can(self.wants)]


def wrk(connections=32, fields=(), script=(), may_fail=False):
    return lambda proxy, scenario, seconds: loads.wrk(
        proxy.ground, proxy.url(scenario.secure, scenario.path), seconds, connections, fields, script, may_fail)


def h2(proxy, scenario, seconds, fields=()):
    return loads.h2load(proxy.ground, proxy.url(scenario.secure, scenario.path), seconds, fields)


def handshakes(kind):
    return lambda proxy, _, seconds: loads.own(proxy.ground, seconds, "handshakes", proxy.place.secure, seconds, kind)


def websocket(proxy, _, seconds):
    return loads.own(proxy.ground, seconds, "websocket", proxy.place.plain, seconds, 16)


def reloads(proxy, scenario, seconds):
    with loads.Reloading(proxy, seconds):
        return wrk(may_fail=True)(proxy, scenario, seconds)


def posts(size):
    return wrk(script=("post.lua", str(size)))


def answers(place, path, fields):
    client = http.client.HTTPConnection("127.0.0.1", place.plain, timeout=5)
    try:
        client.request("GET", path, headers=fields)
        return client.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        client.close()


def start_up(ground, peer, scenario):
    """From the start of the program to the first answer."""
    fields = {"Host": f"host{HOSTS - 1}.example.com"}
    proxy = Proxy(ground, peer, scenario.wants)
    begun = time.monotonic()
    try:
        while not answers(proxy.place, "/v1/x", fields):
            if time.monotonic() > begun + 60:
                sys.exit(f"{peer.name} does not answer")
            time.sleep(0.002)
        return {"ready_ms": (time.monotonic() - begun) * 1000, "cpu_ms": proxy.cpu_ns() / 1e6,
                "resident_mib": resident_kib(proxy.pid) / 1024}
    finally:
        proxy.stop()


def memory(ground, peer, scenario):
    """Resident memory with so many connections between two requests."""
    proxy = Proxy(ground, peer, scenario.wants).wait()
    port = proxy.place.secure if scenario.secure else proxy.place.plain
    command = ["taskset", "-c", LOAD_CORE, sys.executable, os.path.join(HERE, "clients.py"), "idle", str(port),
               "tls" if scenario.secure else "plain"]
    clients = ground.spawn(command, out=subprocess.PIPE, errors=None, stdin=subprocess.PIPE, text=True, env=ground.clients)
    found = {}
    try:
        settle()
        for count in IDLE:
            print(count, file=clients.stdin, flush=True)
            if not clients.stdout.readline():
                sys.exit(f"{peer.name} does not hold {count} connections")
            settle()
            found[f"kib_{count}"] = resident_kib(proxy.pid)
        least, most = IDLE[1], IDLE[-1]
        found["kib_each"] = (found[f"kib_{most}"] - found[f"kib_{least}"]) / (most - least)
        return found
    finally:
        ground.end([clients])
        clients.stdin.close()
        clients.stdout.close()
        proxy.stop()


JSON, KEYED = ("Accept-Encoding: gzip",), (f"X-API-Key: {KEY}",)
SCENARIOS = {
    "h1": Load("H1, small", wrk(), paced="plain"),
    "tls": Load("TLS 1.3, H1, small", wrk(), secure=True, paced="tls"),
    "h2": Load("TLS 1.3, H2, small, 16 streams", h2, secure=True, paced="h2"),
    "page": Load("H1, a browser's page of 4 KiB", wrk(fields=BROWSER), path="/page"),
    "page-h2": Load("TLS 1.3, H2, a browser's page of 4 KiB", lambda *of: h2(*of, fields=BROWSER), path="/page", secure=True),
    "to-tls": Load("H1 to a TLS backend, small", wrk(), Wants(origin="tls")),
    "post-1k": Load("POST 1 KiB", posts(1 << 10)),
    "post-64k": Load("POST 64 KiB", posts(64 << 10)),
    "64k": Load("64 KiB", wrk(), path="/64k"),
    "64k-tls": Load("64 KiB, TLS 1.3", wrk(), path="/64k", secure=True),
    "1m": Load("1 MiB", wrk(), path="/1m"),
    "1m-tls": Load("1 MiB, TLS 1.3", wrk(), path="/1m", secure=True),
    "handshake-ecdsa": Load("TLS handshake, ECDSA P-256", handshakes("full"), unit="handshake", secure=True),
    "handshake-rsa": Load("TLS handshake, RSA 2048", handshakes("full"), Wants(certificate="rsa"), "handshake", secure=True),
    "handshake-resumed": Load("TLS handshake, resumed", handshakes("resumed"), unit="handshake", secure=True),
    "hit-1k": Load("Cache hit, 1 KiB", wrk(), Wants(cache=True), path="/1k", paced="plain"),
    "hit-1m": Load("Cache hit, 1 MiB", wrk(), Wants(cache=True), path="/1m"),
    "gzip": Load("gzip of 32 KiB of JSON", wrk(8, JSON), Wants(gzip=True), path="/json"),
    "hosts": Load("10,000 hosts with a route each", wrk(fields=(f"Host: host{HOSTS - 1}.example.com",)),
                  Wants(hosts=HOSTS), path="/v1/x"),
    "backends": Load("1,000 backends, least connections", wrk(64), Wants(origin="thousand", least_connections=True)),
    "dead": Load("One of four backends is dead", wrk(may_fail=True), Wants(origin="dead", watchful=True)),
    "slow": Load("One of four backends takes 20 ms", wrk(), Wants(origin="slow", least_connections=True)),
    "log": Load("Access log on", wrk(), Wants(log=True)),
    "guarded": Load("API key and limit on", wrk(fields=KEYED), Wants(guarded=True)),
    "features": Load("Key, limit, log, compression negotiated", wrk(fields=(*KEYED, *JSON)),
                     Wants(guarded=True, log=True, gzip=True), peers=(*EVERYBODY, "plain")),
    "websocket": Load("WebSocket echo, 100 bytes", websocket, Wants(origin="echo"), "message"),
    "reload": Load("A reload every second", reloads, Wants(reloads=True)),
    "start": Once("Start with 10,000 hosts", start_up, Wants(hosts=HOSTS)),
    "idle": Once("Idle connections", memory, rarely=5),
    "idle-tls": Once("Idle TLS connections", memory, secure=True, rarely=5),
}
