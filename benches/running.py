"""What the benches that start other programs have in common: ports, files, certificates, processes that end with them, and
what those processes cost."""
import os
import random
import signal
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "..", "target"))
RELEASE = os.path.join(TARGET, "release")
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
KEYS = {"ecdsa": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}


def free_port():
    """Below those that the kernel gives to clients, since a load would take it before it is listened on."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def wait_for(port):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def json_of(length):
    """Records as an API sends them, one an object in a list; the same on every machine."""
    chance = random.Random(5)
    names = ["".join(chance.choices("abcdefghijklmnoprstuvwz", k=chance.randint(3, 9))) for _ in range(300)]
    record = lambda number: ('{"id":%d,"name":"%s %s","email":"%s@example.com","active":%s,"balance":%.2f,"tags":["%s","%s"]}'
                             % (number, *chance.choices(names, k=3), chance.choice(["true", "false"]),
                                chance.uniform(0, 9999), *chance.choices(names[:20], k=2)))
    return ("[" + ",".join(record(number) for number in range(length // 90)))[:length - 1] + "]"


def tree(pid):
    """A process and all that descend from it."""
    children = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        if fields := stat(name):
            children.setdefault(int(fields[1]), []).append(int(name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def stat(pid):
    """The fields of /proc/PID/stat after the name, of which the first is the state."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(") ", 1)[1].split()
    except (OSError, IndexError):
        return None


def cpu_ns(pid):
    """How long the threads of a process and its descendants ran, as the scheduler counts it, to the nanosecond. Children that
    have ended and been waited for are in it too, in clock ticks."""
    total = 0
    for one in tree(pid):
        if fields := stat(one):
            total += (int(fields[13]) + int(fields[14])) * TICK_NS
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{task}/schedstat") as file:
                    total += int(file.read().split()[0])
        except OSError:
            continue
    return total


def resident_kib(pid):
    """The memory of a process and its descendants, where pages that several of them have are counted once."""
    total = 0
    for one in tree(pid):
        with open(f"/proc/{one}/smaps_rollup") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total


class Programs:
    """Programs that were started here, and nothing else, and a folder for their files."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def certificate(self, kind, name=""):
        """Paths of a certificate for localhost and of its key, signed by itself."""
        cert, key = (os.path.join(self.folder, f"{name}{part}.pem") for part in ("cert", "key"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", *KEYS[kind], "-nodes", "-keyout", key, "-out", cert, "-days",
                        "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
                       check=True, capture_output=True)
        return cert, key

    def spawn(self, command, port=None, errors=subprocess.DEVNULL, out=subprocess.DEVNULL, **more):
        """Starts a program in a group of its own, so that all of it can be ended; with a port it is awaited."""
        more.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen(command, stdout=out, stderr=errors, start_new_session=True, **more)
        self.running.append(process)
        if port is not None:
            wait_for(port)
        return process

    def stop(self, spared=0):
        """Ends all but the first so many."""
        ending, self.running = self.running[spared:], self.running[:spared]
        self.end(ending)

    def end(self, processes):
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.running = [process for process in self.running if process not in processes]


class Bench(Programs):
    """The same with a certificate, and an origin that a subclass starts."""

    def __init__(self, folder):
        super().__init__(folder)
        self.cert, self.key = self.certificate("ecdsa")
        self.write("both.pem", open(self.cert).read() + open(self.key).read())
        self.origin = free_port()
        self.start_origin()

    def pinned(self, cores, command, port):
        return self.spawn(["taskset", "-c", str(cores), *command], port).pid
