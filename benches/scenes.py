#!/usr/bin/env python3
"""What clients notice when backends misbehave: Portcullis, nginx and HAProxy side by side, end to end on loopback.

    cargo build --release
    benches/scenes.py [--seconds S] [--rounds N] [--scene NAME,NAME] [--only NAME,NAME] [--portcullis PATH]
                      [--write docs/scenes.md]

Needs Linux, Python 3.9 and Debian's nginx-light and haproxy. Each proxy gets the same clients (scene_client.py: a fixed
rate, whatever comes back) and three fresh backends (scene_backend.py), of which the first is odd. Every proxy is started
anew for each scene, so that none remembers the one before. In each round the proxies take turns, and each round begins
with another one. All use one thread, the same time to connect and to answer, and the same statuses to retry after,
where they can; everything else is what a careful operator would write, and stands below with its reasons.
"""
import argparse
import asyncio
import collections
import os
import subprocess
import sys
import tempfile
import time

from running import HERE, RELEASE, Programs, free_port, wait_for
from scene_backend import COUNTS
from scene_client import Clients

BACKENDS = 3
CALM = 1.0

Scene = collections.namedtuple("Scene", "title what mood odd service rate", defaults=(1, 0.010, lambda at, of: 200))
Slice = collections.namedtuple("Slice", "answers counts posts")

SCENES = {
    "calm": Scene("Nothing happens", "For comparison.", "good"),
    "slow": Scene("One is slow", "It takes 20 times as long as the others.", "slow"),
    "fails503": Scene("One fails fast with 503", "It answers 503 at once; its health page stays good.", "fails503"),
    "fails500": Scene("One fails fast with 500", "The same with 500, after which nobody here retries.", "fails500"),
    "hole": Scene("One is a black hole", "It accepts connections and never answers, probes neither.", "hole"),
    "hang": Scene("One hangs behind a good health page", "It answers probes and nothing else.", "hang"),
    "syn": Scene("One is off the network", "It answers nothing any more, not even a SYN. What it got cannot be counted "
                 "after that.", "syn"),
    "closes": Scene("One closes instead of answering", "It reads each request and closes the connection.", "closes"),
    "idle_close": Scene("All close idle connections", "Each closes a connection up to 10 ms after an answer, without a "
                        "word, so that requests meet the closing. By its default nginx takes a server for dead after one "
                        "such failure in ten seconds, and once all are, answers 502 itself; with `max_fails=5` "
                        "(`--only nginx5`) it only comes to that later.", "idle_close", BACKENDS),
    "quota": Scene("One answers 429", "After 20 requests in a second it answers all with 429 and `Retry-After: 2` for "
                   "2 s.", "quota"),
    "breaks": Scene("One breaks off", "It resets the connection in the middle of each body. Nobody can hide that: the "
                    "client has seen the head.", "breaks"),
    "flapping": Scene("One is flapping", "For a second it refuses connections and resets those it has, for the next it "
                      "is well, and so on.", "flapping"),
    "killed": Scene("One is killed and restarted", "SIGKILL after a quarter of the time, back after half of it.", "killed"),
    "all_killed": Scene("All are killed and restarted", "At once, for half a second, after a quarter of the time.",
                        "killed", BACKENDS),
    "overload": Scene("Overload", "Work of 75 ms, so that the three carry 320 a second; 200 come, but 420 in the second "
                      "quarter of the time.", "good", 0, 0.075,
                      lambda at, of: 420 if of / 4 <= at < of / 2 else 200),
}


class Ground(Programs):
    """One proxy with its backends, for one slice."""

    def __init__(self, folder, portcullis):
        super().__init__(folder)
        self.portcullis_path = portcullis
        self.ports = [free_port() for _ in range(BACKENDS)]

    def start_backends(self, scene, begins):
        size = BACKENDS * COUNTS.size + 100_000
        self.seen = self.write("seen", "\0" * size)
        self.commands = []
        for place, port in enumerate(self.ports):
            mood = scene.mood if place < scene.odd and scene.mood != "killed" else "good"
            arguments = [port, mood, begins, scene.service, self.seen, place, BACKENDS]
            self.commands.append([sys.executable, os.path.join(HERE, "scene_backend.py"), *map(str, arguments)])
        self.backends = [self.spawn(command) for command in self.commands]
        for port in self.ports:
            wait_for(port)

    async def kill_and_restart(self, odd, kill_at, back_at):
        await asyncio.sleep(kill_at - time.monotonic())
        for process in self.backends[:odd]:
            process.kill()
            process.wait()
        await asyncio.sleep(back_at - time.monotonic())
        for command in self.commands[:odd]:
            self.spawn(command)

    def start_proxy(self, name):
        port = free_port()
        self.spawn(getattr(self, name)(port), port)
        return port

    def portcullis(self, port, balance="peak_ewma"):
        """Defaults, but for what the others are told too: a health page, the two times, `retry`'s own statuses."""
        backends = ", ".join(f'"127.0.0.1:{port}"' for port in self.ports)
        conf = self.write("portcullis.yaml", f"""
server: {{ threads: 1 }}
listeners: [{{ address: "127.0.0.1:{port}" }}]
upstreams:
  app:
    balance: {balance}
    backends: [{backends}]
    health_check: {{ path: /healthz }}
    timeouts: {{ connect: 1s, first_byte: 2s }}
routes: [{{ upstream: app }}]
admin: {{ address: none }}
log: {{ access: none, dashboard: none }}
""")
        return [self.portcullis_path, "run", "-c", conf]

    def round_robin(self, port):
        """The same with the policy that one gets who asks for none."""
        return self.portcullis(port, "round_robin")

    def nginx5(self, port):
        """The same, slower to take a server for dead."""
        return self.nginx(port, 5)

    def nginx(self, port, max_fails=1):
        """least_conn with a zone, keep-alive, and 429, 502, 503, 504 beside the error and timeout that it retries after by
        default. It never retries what is not idempotent, unless told to. max_fails=1 fail_timeout=10s is its default and
        the quickest it can. Active probes are not part of the free version."""
        servers = " ".join(f"server 127.0.0.1:{port} max_fails={max_fails} fail_timeout=10s;" for port in self.ports)
        conf = self.write("nginx.conf", f"""
daemon off; worker_processes 1; pid {self.folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path {self.folder}/body; proxy_temp_path {self.folder}/proxy;
  fastcgi_temp_path {self.folder}/fastcgi; uwsgi_temp_path {self.folder}/uwsgi; scgi_temp_path {self.folder}/scgi;
  upstream app {{ zone app 64k; least_conn; {servers} keepalive 64; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_connect_timeout 1s; proxy_read_timeout 2s; proxy_send_timeout 2s;
      proxy_next_upstream error timeout http_429 http_502 http_503 http_504; proxy_next_upstream_tries 3; }} }} }}""")
        return ["nginx", "-c", conf]

    def haproxy(self, port):
        """leastconn; probes as often as ours, with the passive observation that takes a server out after 5 failed answers
        in a row; redispatch on the first retry, and retries on all failures and statuses that we retry after and that
        it can (429 it cannot). POST is not sent again, as its manual advises."""
        servers = "\n".join(f"  server s{place} 127.0.0.1:{port}" for place, port in enumerate(self.ports))
        conf = self.write("haproxy.cfg", f"""
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout client 30s
  timeout connect 1s
  timeout server 2s
  timeout check 1s
  option redispatch 1
  retries 3
  retry-on conn-failure empty-response response-timeout 502 503 504
frontend front
  bind 127.0.0.1:{port}
  default_backend app
backend app
  balance leastconn
  option httpchk GET /healthz
  http-request disable-l7-retry if METH_POST
  default-server check inter 2s fastinter 500ms fall 3 rise 2 observe layer7 error-limit 5 on-error mark-down
{servers}
""")
        return ["haproxy", "-f", conf, "-db"]


NAMES = {"portcullis": "Portcullis (`peak_ewma`)", "round_robin": "Portcullis (`round_robin`)", "nginx": "nginx",
         "nginx5": "nginx (`max_fails=5`)", "haproxy": "HAProxy"}
USUAL = ["portcullis", "round_robin", "nginx", "haproxy"]


def play(scene, name, seconds, portcullis):
    """One proxy in one scene."""
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(folder, portcullis)
        try:
            begins = time.monotonic() + 1.5
            ground.start_backends(scene, begins + CALM)
            port = ground.start_proxy(name)
            # The first probes, and what a start takes.
            time.sleep(max(0.5, begins - time.monotonic()))
            answers = asyncio.run(clients(scene, ground, port, max(begins, time.monotonic()), seconds))
        finally:
            ground.stop()
        with open(ground.seen, "rb") as file:
            seen = file.read()
    counts = [COUNTS.unpack_from(seen, place * COUNTS.size) for place in range(BACKENDS)]
    return Slice(answers, counts, sum(times > 1 for times in seen[BACKENDS * COUNTS.size:]))


async def clients(scene, ground, port, begins, seconds):
    load = Clients(port).run(lambda at: scene.rate(at, seconds), seconds, begins)
    if scene.mood != "killed":
        return await load
    out = seconds / 4 if scene.odd < BACKENDS else 0.5
    killing = ground.kill_and_restart(scene.odd, begins + seconds / 4, begins + seconds / 4 + out)
    answers, _ = await asyncio.gather(load, killing)
    return answers


def share(part, of):
    return f"{100 * part / of:.1f}%" if of else "-"


def row(scene, name, slices):
    answers = [answer for one in slices for answer in one.answers]
    good = sorted(answer.took * 1000 for answer in answers if 200 <= answer.status < 400)
    gets, posts = ([answer for answer in answers if answer.is_post == is_post] for is_post in (False, True))
    failed = [sum(not 200 <= answer.status < 400 for answer in some) for some in (gets, posts)]
    all_counts = sum(requests for one in slices for requests, _ in one.counts)
    odd = sum(requests for one in slices for requests, _ in one.counts[:scene.odd])
    to_the_odd = share(odd, all_counts) if 0 < scene.odd < BACKENDS and scene.mood != "syn" else "-"
    ignored = sum(ignored for one in slices for _, ignored in one.counts)
    cells = [NAMES[name], str(len(answers)), share(failed[0], len(gets)), share(failed[1], len(posts)),
             *(f"{good[min(int(len(good) * part), len(good) - 1)]:.0f}" if good else "-" for part in (0.5, 0.99)),
             f"{max(answer.took for answer in answers) * 1000:.0f}",
             to_the_odd + (f", {ignored} unwanted" if scene.mood == "quota" else ""), str(sum(one.posts for one in slices))]
    return f"| {' | '.join(cells)} |"


HEAD = """| | requests | GET failed | POST failed | p50 ms | p99 ms | longest ms | to the odd | POST twice |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""

PAGE = """# What clients notice when backends misbehave

Portcullis, nginx {nginx} and HAProxy {haproxy} (Debian's) in the same scenes, end to end on loopback. Made by
`benches/scenes.py --write docs/scenes.md`, whose text holds each proxy's configuration with its reasons; rounds: {rounds}, of
{seconds} s a scene and proxy, taking turns.

Three backends, the first of them odd; each works on 8 requests at once, for 10 ms on average, and keeps the others in
line. 200 requests a second come whatever comes back, one in ten of them a POST. The odd one begins to misbehave after
the first second, so that finding out is part of the figures. All proxies may take 1 s to connect and 2 s for the head
of a response, and retry after a failed connection, a reset, a timeout, 429 (HAProxy cannot), 502, 503 and 504.

- *failed*: a status of 400 or more, a broken answer, or none within 10 s, as the client sees it.
- *p50*, *p99*: of the answers that were good, from when a request was due. *longest*: of all, also of the failed.
- *to the odd*: its share of all the requests that backends saw; a third would be its share if it were well.
- *POST twice*: how many POSTs reached backends more than once, beside those that a backend refused with 429.

The machine was shared and had two cores: compare the shapes, not the milliseconds.
"""


def version(command):
    out = subprocess.run(command, capture_output=True, text=True)
    words = (out.stdout + out.stderr).split("\n")[0].split()
    return next(word.split("/")[-1].split("-")[0] for word in words if any(letter.isdigit() for letter in word))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scene", default=",".join(SCENES))
    parser.add_argument("--only", default=",".join(USUAL))
    parser.add_argument("--portcullis", default=os.path.join(RELEASE, "portcullis"))
    parser.add_argument("--write")
    args = parser.parse_args()
    unknown = [key for key in args.scene.split(",") if key not in SCENES]
    if unknown:
        parser.error(f"no scene is called {unknown[0]}; there are {', '.join(SCENES)}")
    names, page = args.only.split(","), []
    if args.write:
        page.append(PAGE.format(nginx=version(["nginx", "-v"]), haproxy=version(["haproxy", "-v"]), rounds=args.rounds,
                                seconds=f"{args.seconds:g}"))
    for key in args.scene.split(","):
        scene, slices = SCENES[key], {name: [] for name in names}
        for turn in range(args.rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                slices[name].append(play(scene, name, args.seconds, args.portcullis))
        rows = [row(scene, name, slices[name]) for name in names]
        page.append("\n".join([f"## {scene.title}", "", scene.what, "", HEAD, *rows, ""]))
        print(page[-1], flush=True)
    if args.write:
        with open(args.write, "w") as file:
            file.write("\n".join(page))


if __name__ == "__main__":
    main()
