"""What the benches that start other programs have in common: ports, files, and processes that end with them."""
import os
import signal
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
RELEASE = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "..", "target")), "release")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


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

    def spawn(self, command, port=None, errors=subprocess.DEVNULL, out=subprocess.DEVNULL):
        """Starts a program in a group of its own, so that all of it can be ended; with a port it is awaited."""
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
                                   start_new_session=True)
        self.running.append(process)
        if port is not None:
            wait_for(port)
        return process

    def stop(self, spared=0):
        """Ends all but the first so many."""
        ending, self.running = self.running[spared:], self.running[:spared]
        for process in ending:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in ending:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
