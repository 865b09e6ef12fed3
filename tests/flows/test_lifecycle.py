"""Start, stop, hand over. Method: real processes and signals."""
import http.client
import json
import signal
import socket
import subprocess
import threading
import time

import pytest

import procs
from vectors import f, same_bits


def test_sigterm_drains_what_is_under_way_and_exits_0(server, fake, check):
    fake.config(delay_ms=1000)
    got = []
    t = threading.Thread(target=lambda: got.append(server.embed(["a", "b"], client=server.client())))
    t.start()
    fake.wait_in_flight(1)
    server.proc.send_signal(signal.SIGTERM)
    t.join()
    check(got[0], ["a", "b"])
    assert server.stop() == 0
    fake.config(delay_ms=0)
    server.start()
    check(server.embed_cached(["a", "b"]), ["a", "b"])


def test_while_it_drains_it_is_not_ready_and_sends_new_work_away(server, fake):
    fake.config(delay_ms=1500)
    busy = threading.Thread(target=lambda: server.embed("busy", client=server.client()))
    busy.start()
    fake.wait_in_flight(1)
    idle = server.client(5)
    assert idle.get("/readyz").status == 200
    server.proc.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    try:
        got = server.embed("new", client=idle)
        assert got.status == 503 and int(got.headers["retry-after"]) >= 1, got
        assert idle.get("/readyz").status == 503
        assert idle.get("/v1/health").json()["reason"] == "draining"
        assert idle.get("/livez").status == 200
    except (OSError, http.client.HTTPException):
        pass  # new connections may be refused outright while draining
    busy.join()
    assert server.stop() == 0
    assert fake.count("new") == 0


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once(server, sig):
    connections = [server.raw() for _ in range(5)]
    assert server.embed("a").status == 200
    start = time.monotonic()
    assert server.stop(sig) == 0
    assert time.monotonic() - start < 5
    for c in connections:
        c.close()


def test_a_hanging_provider_does_not_hold_up_the_end_for_ever(serve, fake):
    server = serve(procs.config(fake))
    fake.fault("hang")
    raw = server.raw()
    body = b'{"model":"m","input":"x"}'
    raw.send(b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    fake.wait_in_flight(1)
    server.proc.send_signal(signal.SIGTERM)
    raw.sock.settimeout(30)
    got = raw.read_answer()
    assert got is not None and got.status == 503
    assert server.stop() == 0


def spawn_on(first, *args):
    """Another server on the first one's data directory."""
    log = open(first.dir / "second.log", "ab")
    proc = subprocess.Popen([str(procs.VECKEEP), "serve", "--config", str(first.config_path), "--data-dir",
                             str(first.data), "--listen", "127.0.0.1:0", *args],
                            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                            env=procs.clean_env(HOME=str(first.dir)))
    log.close()
    return proc


def test_a_second_server_waits_for_the_first_and_takes_over(server, check):
    check(server.embed("a"), ["a"])
    (server.data / "LISTEN").unlink(missing_ok=True)
    proc = spawn_on(server, "--lock-wait", "30")
    time.sleep(1)
    assert proc.poll() is None and not (server.data / "LISTEN").exists()
    assert server.embed("b").status == 200
    assert server.stop() == 0
    server.proc = proc
    server.wait_ready()
    check(server.embed_cached(["a", "b"]), ["a", "b"])


def test_a_second_server_that_may_not_wait_says_who_holds_the_directory(server):
    proc = spawn_on(server, "--lock-wait", "0")
    assert proc.wait(15) == 75
    said = (server.dir / "second.log").read_text()
    assert str(server.proc.pid) in said, said
    assert server.embed("a").status == 200


def test_a_taken_port_is_an_error_that_names_it(server, serve, fake):
    other = serve(procs.config(fake), start=False, listen=f"127.0.0.1:{server.port}").spawn()
    assert other.proc.wait(15) == 1
    other.proc = None
    assert str(server.port) in other.log()


def test_an_open_bind_without_keys_is_refused(serve, fake):
    other = serve(procs.config(fake), start=False, listen="0.0.0.0:0").spawn()
    code = other.proc.wait(15)
    other.proc = None
    assert code in (1, 2) and "insecure" in other.log()
    ok = serve(procs.config(fake, insecure=True), start=False, listen="0.0.0.0:0").spawn()
    ok.wait_ready()
    ok.host = "127.0.0.1"
    assert ok.client().get("/livez").status == 200


@pytest.mark.parametrize("text,words", [
    ("{", []), ('{"providers": {"p": {"dialect": "nope", "base_url": "http://127.0.0.1:1"}}}', ["dialect", "nope"]),
    ('{"spaces": {"s": {"dims": 8, "route": [{"provider": "missing", "model": "m"}]}}}', ["missing", "route"]),
    ('{"models": {"m": "no-such-space"}}', ["no-such-space"]), ('{"nonsense": 1}', ["nonsense"]),
    ('{"providers": {"p": {"dialect": "openai", "base_url": "http://10.1.2.3/v1"}}}', ["base_url"]),
    ('{"providers": {"p": {"dialect": "openai", "base_url": "http://127.0.0.1:1", "api_key": "${NOT_SET_ANYWHERE}"}}}',
     ["NOT_SET_ANYWHERE"]),
    ('{"spaces": {"s": {"dims": "many", "route": []}}}', ["dims"]),
    ('{"cache": {"max_bytes": "many"}}', ["max_bytes"]),
], ids=lambda v: v[:40] if isinstance(v, str) else "")
def test_a_wrong_config_is_refused_at_start_with_the_place(serve, text, words):
    server = serve(text, start=False).spawn()
    code = server.proc.wait(15)
    server.proc = None
    assert code in (1, 2), code
    for word in words:
        assert word in server.log(), server.log()


def test_the_program_says_what_it_takes(tmp_path):
    if not procs.VECKEEP.exists():
        pytest.skip("no server")

    def run(*args):
        return subprocess.run([str(procs.VECKEEP), *args], capture_output=True, text=True, timeout=20, cwd=tmp_path,
                              env=procs.clean_env(HOME=str(tmp_path)))
    assert run("--help").returncode == 0 and "serve" in run("--help").stdout
    assert run("version").returncode == 0
    for command in ("serve", "embed", "cache", "keys", "backup", "restore", "doctor", "spaces"):
        got = run(command, "--help")
        assert got.returncode == 0 and got.stdout, command
    for args in (("nonsense",), ("serve", "--nonsense"), ("embed", "--model")):
        got = run(*args)
        assert got.returncode == 2 and got.stderr, args


def test_embed_from_the_command_line(server, check):
    got = server.cli("embed", "--model", "m", "--json", "hello", "world")
    assert got.returncode == 0, got
    data = [json.loads(line) for line in got.stdout.splitlines()]
    assert same_bits(data[1]["embedding"], f("m", "none", 8, "world"))
    gone = server.cli("embed", "--model", "m", "x", env={"VECKEEP_URL": "http://127.0.0.1:1"})
    assert gone.returncode in (1, 75) and gone.stderr


def test_backup_under_load_and_restore(server, serve, fake, check, tmp_path):
    texts = [f"t{i}" for i in range(500)]
    check(server.embed(texts), texts)
    stop = threading.Event()

    def load():
        client, i = server.client(), 0
        while not stop.is_set():
            server.embed([f"more {i} {j}" for j in range(20)], client=client)
            i += 1
    t = threading.Thread(target=load)
    t.start()
    target = tmp_path / "backup"
    got = server.cli("backup", target)
    stop.set()
    t.join()
    assert got.returncode == 0, got
    calls = fake.stats()["inputs"]
    other = serve(procs.config(fake), dir="restored", start=False)
    back = subprocess.run([str(procs.VECKEEP), "restore", str(target), "--data-dir", str(other.data)],
                          capture_output=True, text=True, timeout=60, env=procs.clean_env(HOME=str(tmp_path)))
    assert back.returncode == 0, back
    other.start()
    check(other.embed_cached(texts), texts)
    assert fake.stats()["inputs"] == calls
    again = subprocess.run([str(procs.VECKEEP), "restore", str(target), "--data-dir", str(server.data)],
                           capture_output=True, text=True, timeout=60, env=procs.clean_env(HOME=str(tmp_path)))
    assert again.returncode != 0, "a restore went over a directory in use"


def test_health_routes(server):
    for path, words in (("/healthz", b"healthz check passed"), ("/livez", b"healthz check passed"), ("/readyz", b"all shards are ready")):
        got = server.get(path)
        assert got.status == 200 and got.body == words, got
    health = server.get("/v1/health").json()
    assert health["ready"] is True and health["degraded"] == [], health
    text = server.get("/metrics")
    assert text.status == 200 and text.headers["content-type"].startswith("text/plain")
    assert b"veckeep_http_requests_total" in text.body
    root = server.get("/").json()
    assert root["version"]


def test_no_port_stays_taken(server):
    port = server.port
    assert server.stop() == 0
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
