"""The ground on which all are measured: certificates, the origins on core 1, and the proxies on core 0."""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

from running import Programs, cpu_ns, free_port, json_of, wait_for
from wants import Place

HERE = os.path.dirname(os.path.abspath(__file__))
PROXY_CORE, LOAD_CORE = "0", "1"
PAGE = ("Cache-Control 'private, max-age=60'", "X-Frame-Options DENY", "X-Content-Type-Options nosniff",
        "Referrer-Policy same-origin", "Content-Language en", "Vary Accept-Encoding")
SLOW_SECONDS = 0.02
# Clients take what the proxy gives them, and proxies take what clients ask for; so one file for all clients makes the
# ciphers equal.
CLIENTS_CNF = """openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = tls
[tls]
MinProtocol = TLSv1.3
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
"""


class Ground(Programs):
    def __init__(self, folder, memory):
        super().__init__(folder)
        self.memory = memory
        self.certificates = {kind: self.certificate(kind, f"{kind}-") for kind in ("ecdsa", "rsa")}
        for kind, (cert, key) in self.certificates.items():
            self.write(f"{kind}-both.pem", open(cert).read() + open(key).read())
        # Only what is started here sees it; what stands in the surroundings already would change the proxies too.
        self.clients = {**os.environ, "OPENSSL_CONF": self.write("clients.cnf", CLIENTS_CNF)}
        self.plain, self.secure, self.slow, self.echo, self.dead = (free_port() for _ in range(5))
        self.start_origin()
        self.started_backends = set()

    def start_origin(self):
        bodies = {"1k": "x" * 1024, "page": "x" * 4096, "64k": "x" * (64 << 10), "1m": "x" * (1 << 20), "json": json_of(32 << 10)}
        for name, content in bodies.items():
            self.write(name, content)
        cert, key = self.certificates["ecdsa"]
        many = "\n".join(f"listen {address} backlog=1024;" for address in self.thousand())
        conf = self.write("origin.conf", f"""
user root; daemon off; worker_processes 1; pid {self.folder}/origin.pid; error_log /dev/null;
events {{ worker_connections 16384; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; sendfile on; client_max_body_size 10m;
  client_body_temp_path {self.folder}/origin-body; client_body_buffer_size 128k;
  server {{ listen 127.0.0.1:{self.plain} backlog=4096; listen 127.0.0.1:{self.secure} ssl; {many}
    ssl_certificate {cert}; ssl_certificate_key {key}; root {self.folder};
    add_header Cache-Control "max-age=3600"; location = /json {{ default_type application/json; }}
    location = /page {{ {" ".join(f"add_header {field};" for field in PAGE)} }}
    location = /counted {{ stub_status; }}
    location / {{ return 200 "hello world\\n"; }}
    location ~ ^/(1k|64k|1m)$ {{ }} }} }}""")
        self.spawn(["taskset", "-c", LOAD_CORE, "nginx", "-c", conf], self.plain)

    def thousand(self):
        """As many addresses of this machine, with the origin behind all of them."""
        return [f"127.1.{number // 250}.{number % 250 + 1}:{self.plain}" for number in range(1000)]

    def backends(self, kind):
        if kind in ("slow", "echo") and kind not in self.started_backends:
            port, more = (self.slow, [str(SLOW_SECONDS)]) if kind == "slow" else (self.echo, [])
            self.spawn(["taskset", "-c", LOAD_CORE, sys.executable, os.path.join(HERE, "backends.py"), kind, str(port), *more],
                       port)
            self.started_backends.add(kind)
        return {"plain": lambda: [f"127.0.0.1:{self.plain}"], "tls": lambda: [f"127.0.0.1:{self.secure}"],
                "thousand": self.thousand, "echo": lambda: [f"127.0.0.1:{self.echo}"],
                "dead": lambda: [*self.thousand()[:3], f"127.0.0.1:{self.dead}"],
                "slow": lambda: [*self.thousand()[:3], f"127.0.0.1:{self.slow}"]}[kind]()

    def fetched(self):
        """How many requests the origin has had, this one included."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.plain}/counted", timeout=10) as answer:
            return int(re.search(r"(\d+)\s+(\d+)\s+(\d+)\s*$", answer.read().decode(), re.M).group(3))

    def client(self, command, seconds, feed=None):
        """What a load on the other core has printed; `seconds` is how long it is asked to take."""
        done = subprocess.run(["taskset", "-c", LOAD_CORE, *command], capture_output=True, text=True, input=feed,
                              timeout=seconds + 60, env=self.clients)
        return done.stdout if done.returncode == 0 else sys.exit(f"{' '.join(command)}: {done.stdout}{done.stderr}")


class Proxy:
    """One proxy that runs, as one scenario or several want it."""

    def __init__(self, ground, peer, wants):
        self.ground, self.peer, self.wants = ground, peer, wants
        cert, key = ground.certificates[wants.certificate]
        self.folder = tempfile.mkdtemp(dir=ground.memory, prefix=f"{peer.name}-")
        self.place = Place(self.folder, free_port(), free_port(), cert, key, f"{ground.folder}/{wants.certificate}-both.pem",
                           tuple(ground.backends(wants.origin)))
        command = ["taskset", "-c", PROXY_CORE, *peer.command(wants, self.place)]
        self.said = open(f"{self.folder}/said.log", "w")
        self.process = ground.spawn(command, errors=subprocess.STDOUT, out=self.said)

    @property
    def pid(self):
        return self.process.pid

    def wait(self):
        wait_for(self.place.plain)
        if self.process.poll() is not None:
            sys.exit(f"{self.peer.name} ended: {open(self.said.name).read()[-2000:]}")
        return self

    def cpu_ns(self):
        return cpu_ns(self.pid)

    def url(self, secure, path, host="127.0.0.1"):
        return f"https://{host}:{self.place.secure}{path}" if secure else f"http://{host}:{self.place.plain}{path}"

    def reload(self):
        """Other words in the same file, and the signal after which it is read."""
        self.place = Place(**{**vars(self.place), "turn": self.place.turn + 1})
        self.peer.command(self.wants, self.place)
        os.kill(self.pid, self.peer.reload_signal)

    def stop(self):
        self.ground.end([self.process])
        self.said.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def settle():
    """What a proxy does after it was started, and what the one before left to do, is not measured."""
    time.sleep(0.3)


HUP, USR2 = signal.SIGHUP, signal.SIGUSR2
