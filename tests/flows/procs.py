"""The two programs under test, as processes: the fake provider and the server."""
import json
import os
import pathlib
import re
import signal
import subprocess
import time

from vectors import f
from wire import Client, Raw

ROOT = pathlib.Path(__file__).resolve().parents[2]
VECKEEP = pathlib.Path(os.environ.get("VECKEEP_BIN", ROOT / "build" / "veckeep"))
FAKE = pathlib.Path(os.environ.get("FAKE_BIN", ROOT / "build" / "fake_provider"))
START_S = float(os.environ.get("VECKEEP_START_S", "20"))
STOP_S = 30


def clean_env(**more):
    """The environment without anything that would configure a server or reach out."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith("VECKEEP_") and not k.endswith(("_API_KEY", "_PROXY", "_proxy"))}
    env.update(more)
    return env


class Fake:
    def __init__(self, *options, dims=8, seed=1):
        self.dims = dims
        self.proc = subprocess.Popen([str(FAKE), "--dims", str(dims), "--seed", str(seed), *map(str, options)],
                                     stdout=subprocess.PIPE, text=True, env=clean_env())
        line = self.proc.stdout.readline()
        assert line.startswith("listening "), f"fake_provider did not start: {line!r}"
        self.port = int(line.split()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = Client("127.0.0.1", self.port)

    def _admin(self, path, body):
        got = self.client.post(path, body)
        assert got.status == 200, got
        return got

    def fault(self, mode, **more):
        self._admin("/_fake/faults", {"mode": mode, **more})

    def clear(self):
        self._admin("/_fake/faults/clear", {})

    def config(self, **values):
        self._admin("/_fake/config", values)

    def reset(self):
        self._admin("/_fake/reset", {})

    def stats(self):
        return self.client.get("/_fake/stats").json()

    def count(self, text):
        """How often this text came, in whatever space and role."""
        return self.stats()["by_text"].get(text, 0)

    def counts(self, role=None):
        """{(space, role, text): times}"""
        out = {}
        for key, n in self.stats()["by_key"].items():
            space, its_role, text = key.split("\x1f", 2)
            if role is None or role == its_role:
                out[space, its_role, text] = n
        return out

    def wait_in_flight(self, n, seconds=10):
        wait_for(lambda: self.stats()["in_flight"] >= n, seconds, f"{n} calls in flight at the fake")

    def stop(self):
        self.client.close()
        self.proc.terminate()
        code = self.proc.wait(10)
        self.proc.stdout.close()
        return code


def wait_for(true, seconds, what):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        got = true()
        if got:
            return got
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds} s for {what}")


class Server:
    """`veckeep serve` on a port of its own. `dir` keeps config, data and log between restarts."""

    def __init__(self, dir, config, env=None, args=(), start=True, listen="127.0.0.1:0"):
        self.dir = pathlib.Path(dir)
        self.data = self.dir / "data"
        self.config_path = self.dir / "config.json"
        self.log_path = self.dir / "server.log"
        self.env, self.args, self.listen = dict(env or {}), list(args), listen
        self.key = None
        self.proc = None
        self._client = None
        self.write_config(config)
        if start:
            self.start()

    def write_config(self, config):
        text = config if isinstance(config, str) else json.dumps(config, indent=1)
        fresh = self.config_path.with_suffix(".new")
        fresh.write_text(text)
        os.replace(fresh, self.config_path)

    def spawn(self, *more):
        """Starts the process and does not wait."""
        (self.data / "LISTEN").unlink(missing_ok=True)
        log = open(self.log_path, "ab")
        self.proc = subprocess.Popen(
            [str(VECKEEP), "serve", "--config", str(self.config_path), "--data-dir", str(self.data),
             "--listen", self.listen, *self.args, *more],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.dir,
            env=clean_env(HOME=str(self.dir), **self.env))
        log.close()
        return self

    def start(self, *more):
        self.spawn(*more)
        return self.wait_ready()

    def wait_ready(self, seconds=START_S):
        end = time.monotonic() + seconds
        path = self.data / "LISTEN"
        while time.monotonic() < end:
            if self.proc.poll() is not None:
                raise AssertionError(f"veckeep exited with {self.proc.returncode} at start\n{self.log()}")
            text = path.read_text() if path.exists() else ""
            if text.endswith("\n"):
                host, port = text.split()[0].rsplit(":", 1)
                self.host, self.port = host, int(port)
                self.url = f"http://{host}:{port}"
                self._client = self.client()
                return self
            time.sleep(0.005)
        raise AssertionError(f"veckeep was not ready in {seconds} s\n{self.log()}")

    def log(self, lines=40):
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def client(self, timeout=60):
        return Client(self.host, self.port, timeout)

    def raw(self, timeout=15):
        return Raw(self.host, self.port, timeout)

    def headers(self, more=None):
        out = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        out.update(more or {})
        return out

    def get(self, path, headers=None):
        return self._client.get(path, self.headers(headers))

    def post(self, path, body=None, headers=None):
        return self._client.post(path, body, self.headers(headers))

    def embed(self, input, model="m", headers=None, client=None, **more):
        return (client or self._client).post("/v1/embeddings", {"model": model, "input": input, **more},
                                             self.headers(headers))

    def embed_cached(self, input, model="m", **more):
        return self.embed(input, model, {"Cache-Control": "only-if-cached"}, **more)

    def cli(self, *args, env=None, timeout=60):
        """A subcommand against this server."""
        more = {"VECKEEP_URL": self.url, "HOME": str(self.dir), **(env or {})}
        if self.key:
            more["VECKEEP_API_KEY"] = self.key
        return subprocess.run([str(VECKEEP), *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, env=clean_env(**more), cwd=self.dir, timeout=timeout)

    def metric(self, name, **labels):
        """The sum of a metric's samples that carry these labels."""
        total = 0.0
        for line in self.get("/metrics").body.decode().splitlines():
            m = re.match(r"([a-zA-Z_:]+)(?:\{(.*)\})? (\S+)$", line)
            if not m or m[1] != name:
                continue
            have = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', m[2] or ""))
            if all(have.get(k) == v for k, v in labels.items()):
                total += float(m[3])
        return total

    def stop(self, sig=signal.SIGTERM, seconds=STOP_S):
        """Ends the server and gives its exit code."""
        if self._client:
            self._client.close()
            self._client = None
        if self.proc is None:
            return 0
        proc, self.proc = self.proc, None
        if proc.poll() is None:
            proc.send_signal(sig)
        try:
            return proc.wait(seconds)
        except subprocess.TimeoutExpired:
            proc.kill()
            proc.wait()
            raise AssertionError(f"veckeep did not end within {seconds} s of signal {sig}\n{self.log()}")

    def kill(self):
        return self.stop(signal.SIGKILL)

    def restart(self):
        assert self.stop() == 0, self.log()
        return self.start()


# ---- configurations ----

def provider(fake, dialect="openai", **more):
    """A provider entry for the fake; base_url as the dialect wants it."""
    base = fake.url + "/v1" if dialect == "openai" else fake.url
    out = {"dialect": dialect, "base_url": base, "labels": ["onprem"], **more}
    return {k: v for k, v in out.items() if v is not None}


def space(*hops, dims=8, **more):
    """A space whose route is ("provider", "model") pairs; a bare name serves model "m"."""
    route = [{"provider": h, "model": "m"} if isinstance(h, str) else dict(zip(("provider", "model", "weight"), h))
             for h in hops or ("fake",)]
    return {"dims": dims, "route": route, **more}


ROLES = {"query": {"value": "query"}, "document": {"value": "document"}}


def config(fake=None, providers=None, spaces=None, models=None, provider_more=None, space_more=None, **top):
    """The smallest whole config: model "m" -> space "test/m@1" -> provider "fake", 8 dims."""
    return {
        "providers": providers or {"fake": provider(fake, **(provider_more or {}))},
        "spaces": spaces or {"test/m@1": space(dims=fake.dims, **(space_more or {}))},
        "models": models or {"m": "test/m@1"},
        **top,
    }


def expect(texts, space="m", role="none", dims=8):
    return [f(space, role, dims, t) for t in texts]
