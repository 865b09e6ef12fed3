"""Keys: from the environment, the config and the server's own; scopes, expiry, and that none is ever shown."""
import hashlib
import json
import time

import pytest

import procs

ADMIN = "admin-key-for-tests-0123456789abcdef"


@pytest.fixture
def locked(serve, fake):
    server = serve(procs.config(fake), env={"VECKEEP_ADMIN_KEY": ADMIN})
    server.key = ADMIN
    return server


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def create(server, **body):
    got = server.post("/v1/keys", body)
    assert got.status in (200, 201), got
    return got.json()


def test_without_a_key_nothing_but_health_is_open(locked, fake):
    c = locked.client()
    got = c.post("/v1/embeddings", {"model": "m", "input": "a"})
    assert got.status == 401 and got.error["code"] == "invalid_api_key", got
    assert got.headers.get("www-authenticate", "").lower().startswith("bearer")
    for path in ("/v1/models", "/v1/cache", "/v1/keys", "/metrics", "/v1/usage"):
        assert c.get(path).status == 401, path
    for path in ("/healthz", "/livez", "/readyz"):
        assert c.get(path).status == 200, path
    for wrong in ("nonsense", "", ADMIN[:-1], ADMIN + "x", "\u00e9", "x" * 5000):
        assert c.get("/v1/models", bearer(wrong.encode().decode("latin-1"))).status in (400, 401), wrong
    assert c.get("/v1/models", {"Authorization": ADMIN}).status == 401
    assert c.get("/v1/models", {"Authorization": f"Basic {ADMIN}"}).status == 401
    assert fake.stats()["calls"] == 0


def test_a_key_is_taken_as_bearer_or_as_api_key(locked, check):
    check(locked.embed("a"), ["a"])
    c = locked.client()
    for header in ({"Authorization": f"Bearer {ADMIN}"}, {"authorization": f"bearer {ADMIN}"}, {"api-key": ADMIN}):
        assert c.get("/v1/models", header).status == 200, header


def test_scopes_are_kept(locked):
    key = create(locked, name="rag", scopes=["embed"])["key"]
    assert key.startswith("vkeep_")
    c = locked.client()
    assert c.post("/v1/embeddings", {"model": "m", "input": "a"}, bearer(key)).status == 200
    for method, path, body in (("POST", "/v1/keys", {"name": "x", "scopes": ["admin"]}), ("GET", "/v1/keys", None),
                               ("POST", "/v1/cache/purge", {"texts": ["a"]})):
        assert c.request(method, path, body, bearer(key)).status == 403, path
    scrape = create(locked, name="prometheus", scopes=["metrics"])["key"]
    assert c.get("/metrics", bearer(scrape)).status == 200
    assert c.post("/v1/embeddings", {"model": "m", "input": "a"}, bearer(scrape)).status == 403


def test_a_key_that_is_mistyped_expired_or_revoked_is_refused(locked):
    made = create(locked, name="k", scopes=["embed"])
    key = made["key"]
    c = locked.client()
    assert c.get("/v1/models", bearer(key)).status in (200, 403)
    for wrong in (key[:-1] + ("0" if key[-1] != "0" else "1"), key[:-1], key.upper()):
        assert c.get("/v1/models", bearer(wrong)).status == 401
    short = create(locked, name="short", scopes=["embed"], expires=int((time.time() + 1.2) * 1000))["key"]
    ask = {"model": "m", "input": "a"}
    assert c.post("/v1/embeddings", ask, bearer(short)).status == 200
    time.sleep(1.5)
    assert c.post("/v1/embeddings", ask, bearer(short)).status == 401
    assert locked._client.request("DELETE", f"/v1/keys/{made['id']}", headers=bearer(ADMIN)).status in (200, 204)
    assert c.post("/v1/embeddings", ask, bearer(key)).status == 401


def test_keys_live_on_and_are_never_shown_again(locked):
    key = create(locked, name="k", scopes=["embed"])["key"]
    locked.restart()
    assert locked.client().post("/v1/embeddings", {"model": "m", "input": "a"}, bearer(key)).status == 200
    listed = locked.get("/v1/keys").body.decode()
    assert '"k"' in listed and key not in listed and hashlib.sha256(key.encode()).hexdigest() not in listed
    assert locked.stop() == 0
    for path in locked.data.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert key.encode() not in data and ADMIN.encode() not in data, path
    assert key not in locked.log(10000) and ADMIN not in locked.log(10000)


def test_a_key_from_the_config_is_known_by_its_hash(serve, fake, locked, check):
    key = create(locked, name="k", scopes=["embed", "read"])["key"]
    server = serve(procs.config(fake, keys=[{"name": "rag", "sha256": hashlib.sha256(key.encode()).hexdigest(),
                                             "scopes": ["embed", "read"]}]), dir="with-keys")
    assert server.embed("a").status == 401
    server.key = key
    check(server.embed("a"), ["a"])
    assert server.post("/v1/keys", {"name": "x", "scopes": ["admin"]}).status == 403


def test_an_admin_key_from_a_file(serve, fake, tmp_path):
    secret = tmp_path / "admin"
    secret.write_text(ADMIN + "\n")
    secret.chmod(0o600)
    server = serve(procs.config(fake), env={"VECKEEP_ADMIN_KEY_FILE": str(secret)}, dir="file")
    assert server.embed("a").status == 401
    server.key = ADMIN
    assert server.embed("a").status == 200


def test_keys_from_the_command_line(locked):
    got = locked.cli("keys", "create", "--name", "cli", "--scopes", "embed", "--json")
    assert got.returncode == 0, got
    key = json.loads(got.stdout)["key"]
    assert locked.client().post("/v1/embeddings", {"model": "m", "input": "a"}, bearer(key)).status == 200
    listed = locked.cli("keys", "list")
    assert listed.returncode == 0 and "cli" in listed.stdout and key not in listed.stdout


def test_the_providers_key_never_leaves(serve, make_fake):
    fake = make_fake("--api-key", "sk-upstream-not-for-you")
    server = serve(procs.config(fake, provider_more={"api_key": "sk-upstream-not-for-you"}))
    assert server.embed("a").status == 200
    for path in ("/v1/providers", "/v1/spaces", "/v1/models", "/metrics", "/v1/usage", "/v1/cache", "/"):
        assert b"not-for-you" not in server.get(path).body, path
    shown = server.cli("doctor", "--json")
    assert "not-for-you" not in shown.stdout + shown.stderr
    assert server.stop() == 0
    assert "not-for-you" not in server.log(10000)
    assert not any(b"not-for-you" in p.read_bytes() for p in server.data.rglob("*") if p.is_file())
