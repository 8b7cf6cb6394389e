#!/usr/bin/env python3
"""A hundred reloads in a minute under load: how many requests fail?

    cargo build            # or --release, and then --profile release here
    benches/reloads.py [--reloads N] [--seconds S] [--profile debug]

Starts Portcullis before three backends (themselves Portcullis with a fixed answer), loads it over HTTP/1.1 with keep-alive
and over HTTP/2 with TLS by `h2load` (Debian's nghttp2-client), and meanwhile writes another configuration and sends SIGHUP,
N times in S seconds: every third time other backends, every third time other weights, every third time another route.
Prints what the loads report, and ends by itself; the exit code is 1 if a request failed or a reload did.
"""
import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

from running import TARGET, free_port, wait_for


def backends_file(ports):
    listeners = "".join(f"  - address: 127.0.0.1:{port}\n" for port in ports)
    return (f"listeners:\n{listeners}routes: [{{ respond: {{ status: 200, body: \"hello\" }} }}]\n"
            "admin: { address: none }\nlog: { access: none, dashboard: none }\n")


def front_file(turn, plain, tls, backends):
    used = [backends[0]] + [port for index, port in enumerate(backends[1:]) if (turn // 3 + index) % 3]
    weight = 1 + turn // 2 % 5
    urls = ", ".join(f"{{ url: \"127.0.0.1:{port}\", weight: {weight if port != backends[0] else 1} }}" for port in used)
    return (f"listeners:\n  - address: 127.0.0.1:{plain}\n  - {{ address: 127.0.0.1:{tls}, tls: {{ self_signed: [localhost] }} }}\n"
            f"upstreams: {{ app: {{ backends: [{urls}] }} }}\n"
            f"routes: [{{ upstream: app, headers: {{ response: {{ set: {{ x-turn: \"{turn}\" }} }} }} }}]\n"
            "server: { reload: { watch: false } }\nadmin: { address: none }\nlog: { access: none, dashboard: none }\n")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--reloads", type=int, default=100)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--profile", default="debug")
    options = arguments.parse_args()
    program = os.path.join(TARGET, options.profile, "portcullis")
    plain, tls, *backends = (free_port() for _ in range(5))
    running = []
    with tempfile.TemporaryDirectory() as folder:
        def write(name, text):
            path = os.path.join(folder, name)
            with open(path + ".new", "w") as file:
                file.write(text)
            os.replace(path + ".new", path)
            return path

        def start(name, text):
            log = open(os.path.join(folder, name + ".log"), "w")
            running.append(subprocess.Popen([program, "run", "-c", write(name, text)], stderr=log, stdout=log))
            return running[-1]

        try:
            start("backends.yaml", backends_file(backends))
            front = start("front.yaml", front_file(0, plain, tls, backends))
            for port in [plain, tls, *backends]:
                wait_for(port)
            duration = str(int(options.seconds))
            loads = {name: subprocess.Popen(["h2load", "-D", duration, *flags], stdout=subprocess.PIPE,
                                            stderr=subprocess.STDOUT, text=True)
                     for name, flags in {
                         "HTTP/1.1": ["-c", "8", "--h1", f"http://127.0.0.1:{plain}/"],
                         "HTTP/2": ["-c", "4", "-m", "8", f"https://127.0.0.1:{tls}/"],
                     }.items()}
            begin = time.time()
            for turn in range(1, options.reloads + 1):
                time.sleep(max(0, begin + turn * (options.seconds - 1) / options.reloads - time.time()))
                write("front.yaml", front_file(turn, plain, tls, backends))
                front.send_signal(signal.SIGHUP)
            failures = 0
            for name, load in loads.items():
                report, _ = load.communicate(timeout=options.seconds + 30)
                requests = re.search(r"requests: .*", report).group()
                statuses = re.search(r"status codes: .*", report).group()
                print(f"{name}: {requests}\n{name}: {statuses}")
                bad = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", requests)
                other = re.search(r"(\d+) 3xx, (\d+) 4xx, (\d+) 5xx", statuses)
                failures += sum(map(int, bad.groups())) + sum(map(int, other.groups()))
            with open(os.path.join(folder, "front.yaml.log")) as log:
                lines = log.read()
            done = lines.count("reload: done")
            print(f"{options.reloads} reloads asked for, {done} done, {failures} requests failed")
            if lines.count("reload: nothing was changed"):
                print(lines)
            # Two signals that come while one reload goes on are one; the load must have seen most of them.
            sys.exit(failures > 0 or "nothing was changed" in lines or done < options.reloads * 0.9)
        finally:
            for process in running:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
