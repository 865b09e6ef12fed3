"""What the cache benches measure with: the programs, wrk, and the machine's own state.

The fake provider and the server are run as the flow tests run them (tests/flows/procs.py). A
measurement is one run of wrk against one program, with the program's CPU time and what everything
else on the machine used meanwhile: a figure taken beside other work must say so.
"""
import json
import os
import pathlib
import platform
import resource
import socket
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = pathlib.Path(os.environ.get("VECKEEP_BUILD", ROOT / "build")).resolve()
os.environ.setdefault("VECKEEP_BIN", str(BUILD / "veckeep"))
os.environ.setdefault("FAKE_BIN", str(BUILD / "fake_provider"))
sys.path.insert(0, str(ROOT / "tests" / "flows"))
import procs  # noqa: E402
from wire import Client  # noqa: E402

DIMS = 1536
TICK = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count()
STARTED = []  # every program of this run: none may outlive a failure


def started(proc):
    STARTED.append(proc)
    return proc


def end_all():
    for proc in STARTED:
        if proc.poll() is None:
            proc.kill()
            proc.wait()
    STARTED.clear()


class Place:
    """One program that answers embeddings: where, and whose CPU time it takes."""

    def __init__(self, name, port, proc, path="/v1/embeddings", headers=None):
        self.name, self.port, self.proc, self.path = name, port, proc, path
        self.url = f"http://127.0.0.1:{port}{path}"

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.proc.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory_mb(self):
        """(own memory, mapped files), resident."""
        got = {}
        for line in pathlib.Path(f"/proc/{self.proc.pid}/status").read_text().splitlines():
            if line.startswith("Rss"):
                key, value = line.split(":")
                got[key] = int(value.split()[0]) / 1024
        return got["RssAnon"] + got["RssShmem"], got["RssFile"]

    def post(self, body, headers=None):
        client = Client("127.0.0.1", self.port)
        try:
            return client.post(self.path, body, {"Content-Type": "application/json", **(headers or {})})
        finally:
            client.close()

    def stop(self):
        self.proc.terminate()
        try:
            self.proc.wait(10)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()


def wait_port(port, proc, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if proc.poll() is not None:
            raise RuntimeError(f"{proc.args[0]} exited with {proc.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{proc.args[0]} did not listen on {port} in {seconds} s")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def floor(size):
    """The bare libmicrohttpd server, answering `size` bytes to everything."""
    port = free_port()
    proc = started(subprocess.Popen([str(BUILD / "bench_http_floor"), "--port", str(port), "--bytes", str(size)]))
    wait_port(port, proc, 5)
    return Place("floor", port, proc)


def fake(**options):
    got = procs.Fake(*[w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", v)], dims=DIMS)
    started(got.proc)
    return got


def place_of(thing, name):
    """A procs.Fake or procs.Server as a Place."""
    return Place(name, thing.port, thing.proc)


def server(dir, provider, roles=None, base64=True):
    """A server whose one provider is the fake, asked for base64 as OpenAI's own is, or for floats."""
    dir.mkdir(exist_ok=True)
    more = {"roles": roles} if roles else {}
    got = procs.Server(dir, procs.config(provider, space_more=more, provider_more={"base64": base64}))
    started(got.proc)
    return got


def cpu_busy_s():
    """CPU seconds that this machine has worked, all cores."""
    v = [int(x) for x in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(v) - v[3] - v[4]) / TICK


def wait_quiet(seconds=2):
    """Waits for a moment in which nothing else is at work, but not for ever."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before, at = cpu_busy_s(), time.monotonic()
        time.sleep(0.2)
        if (cpu_busy_s() - before) / (time.monotonic() - at) < 0.15:
            return


def children_s():
    u = resource.getrusage(resource.RUSAGE_CHILDREN)
    return u.ru_utime + u.ru_stime


def wrk_command(place, clients, seconds, words):
    return ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "30s", "-s", str(ROOT / "bench" / "wrk.lua"),
            place.url, "--", *[f"{k}={v}" for k, v in words.items()]]


def load(place, clients, seconds, beside=(), **words):
    """One run of wrk. `beside`: further Places at work for it, so not counted as others' work."""
    mine = [place, *beside]
    busy, own, wrk, at = cpu_busy_s(), [p.cpu_s() for p in mine], children_s(), time.monotonic()
    out = subprocess.run(wrk_command(place, clients, seconds, words), capture_output=True, text=True)
    wall = time.monotonic() - at
    if out.returncode or not out.stdout.strip().endswith("}"):
        raise RuntimeError(f"wrk failed: {out.stdout}{out.stderr}")
    got = json.loads(out.stdout.strip().splitlines()[-1])
    used = [p.cpu_s() - o for p, o in zip(mine, own)]
    others = cpu_busy_s() - busy - sum(used) - (children_s() - wrk)
    if not got["requests"] or got["errors"]:
        raise RuntimeError(f"{place.name}: {got}")
    got["rps"] = got["requests"] / got["seconds"]
    got["cpu_us"] = used[0] / got["requests"] * 1e6
    got["others"] = max(0.0, others / wall)
    return got


def median(runs, key):
    return statistics.median(r[key] for r in runs)


def ratio(ours, theirs, key):
    """The median of the rounds' own ratios: each pair was measured next to each other."""
    return statistics.median(a[key] / b[key] for a, b in zip(ours, theirs))


def machine():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
                 platform.machine())
    memory = int(open("/proc/meminfo").readline().split()[1]) >> 20
    release = next((line.split("=", 1)[1].strip().strip('"') for line in open("/etc/os-release")
                    if line.startswith("PRETTY_NAME=")), "")
    return f"{model}, {CORES} cores, {memory} GiB; Linux {platform.release()}, {release}"
