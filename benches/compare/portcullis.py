"""Portcullis, and the floor below it: examples/bare.rs, an empty `ProxyHttp` on the same Pingora."""
import hashlib
import os
from dataclasses import replace

from ground import HUP
from running import RELEASE, TARGET
from wants import CACHE_MIB, GZIP_LEVEL, KEY


class Portcullis:
    name, reload_signal = "portcullis", HUP
    program = os.path.join(RELEASE, "portcullis")
    version_flag = "--version"

    def can(self, _wants):
        return True

    def told(self, wants):
        return wants

    def command(self, wants, place):
        wants = self.told(wants)
        listener = "limits: { requests_per_connection: 1000000000 }, timeouts: { idle: 600s }"
        scheme = "https://" if wants.origin == "tls" else ""
        backends = ", ".join(f'"{scheme}{backend}"' for backend in place.backends)
        upstream = [f"backends: [{backends}]", f"balance: {'least_connections' if wants.least_connections else 'round_robin'}",
                    *([] if wants.watchful else ["health_check: none"]),
                    *(["tls: { verify: false }"] if wants.origin == "tls" else [])]
        place.write("keys.yaml", f"- {{ name: bench, hash: 'sha256:{hashlib.sha256(KEY.encode()).hexdigest()}' }}\n")
        conf = place.write("portcullis.yaml", f"""
server: {{ threads: 1, rate_limits: {{ headers: none }}, reload: {{ watch: false }} }}
cache: {{ size: {CACHE_MIB}MiB }}
listeners:
  - {{ address: "127.0.0.1:{place.plain}", {listener} }}
  - {{ address: "127.0.0.1:{place.secure}", tls: {{ certificates: [{{ cert: {place.cert}, key: {place.key} }}] }}, {listener} }}
upstreams: {{ app: {{ {", ".join(upstream)} }} }}
keys: {{ team: {{ file: keys.yaml }} }}
admin: {{ address: none }}
log: {{ access: {place.path("access.log") if wants.log else "none"}, dashboard: none }}
routes:
{self.routes(wants, place.turn)}
""")
        return [self.program, "run", "-c", conf]

    def routes(self, wants, turn):
        more = ["upstream: app"]
        if wants.cache:
            more.append("cache: {}")
        if wants.gzip:
            more.append(f"compress: {{ algorithms: [gzip], levels: {{ gzip: {GZIP_LEVEL} }} }}")
        if wants.guarded:
            more += ["auth: { api_keys: team }", "rate_limits: [{ rate: 1000000/s, key: client_address }]"]
        if wants.reloads:
            more.append(f'headers: {{ response: {{ set: {{ X-Turn: "{turn}" }} }} }}')
        matches = [f"match: {{ host: [host{n}.example.com], path: /v1/* }}, " for n in range(wants.hosts)] or [""]
        return "\n".join(f"  - {{ {match}{', '.join(more)} }}" for match in matches)


class Profiled(Portcullis):
    """The same program, built by a profile of itself (deploy/profiled/build)."""
    name = "profiled"
    program = os.path.join(TARGET, "profiled", "release", "portcullis")


class Plain(Portcullis):
    """The same program on the same route, which asks for nothing; beside it stands what the features of a route cost."""
    name = "plain"

    def told(self, wants):
        return replace(wants, gzip=False, log=False, guarded=False)


class Bare:
    name, reload_signal = "bare", None
    program = os.path.join(RELEASE, "examples", "bare")
    version_flag = None

    def can(self, wants):
        return wants.origin in ("plain", "tls", "echo") and not (
            wants.cache or wants.gzip or wants.log or wants.guarded or wants.hosts or wants.reloads)

    def command(self, wants, place):
        scheme = "https://" if wants.origin == "tls" else ""
        return [self.program, scheme + place.backends[0], str(place.plain), str(place.secure), place.cert, place.key]
