"""Offline mode (hits only), erasing, and explaining a miss. Method: the fake counts what is bought again."""
import json
import time

import pytest

import procs
from vectors import f, same_bits
from wire import positions_of


@pytest.fixture
def two(serve, fake):
    """Spaces m (no roles) and r (roles), one provider."""
    return serve(procs.config(
        providers={"fake": procs.provider(fake, role_field="input_type")},
        spaces={"test/m@1": procs.space(("fake", "m")), "test/r@1": procs.space(("fake", "r"), roles=procs.ROLES)},
        models={"m": "test/m@1", "r": "test/r@1"}))


def purge(server, **body):
    got = server.post("/v1/cache/purge", body)
    assert got.status == 200, got
    return got.json()["purged"]


def held(server, text, model="m"):
    return server.embed_cached(text, model).status == 200


# ---- offline ----

def test_offline_serves_hits_and_names_what_is_missing(serve, fake, check):
    server = serve(procs.config(fake))
    check(server.embed(["a", "c"]), ["a", "c"])
    assert server.stop() == 0
    server.write_config(procs.config(fake, offline=True))
    server.start()
    calls = fake.stats()["calls"]
    check(server.embed(["c", "a"]), ["c", "a"])
    got = server.embed(["a", "b", "c", "d"])
    assert got.status == 503 and got.headers["x-should-retry"] == "false", got
    assert positions_of(got.error) == [1, 3]
    assert server.embed("a", headers={"Cache-Control": "no-cache"}).status == 503
    assert fake.stats()["calls"] == calls and fake.stats()["connections"] <= 3


# ---- purge ----

def test_purge_by_text_erases_it_in_every_space_and_role(two, fake):
    for model, more in (("m", {}), ("r", {"input_type": "query"}), ("r", {"input_type": "document"})):
        assert two.embed(["secret", "other"], model, **more).status == 200
    assert purge(two, texts=["secret"], dry_run=True) == 3
    assert held(two, "secret")
    assert purge(two, texts=["secret"]) == 3
    assert not held(two, "secret") and held(two, "other")
    for role in ("query", "document"):
        got = two.embed("secret", "r", headers={"Cache-Control": "only-if-cached"}, input_type=role)
        assert got.status == 504
        assert two.embed("other", "r", headers={"Cache-Control": "only-if-cached"}, input_type=role).status == 200
    assert purge(two, texts=["secret"]) == 0


def test_purged_is_gone_from_the_disk_and_after_a_restart(two, fake):
    texts = [f"t{i}" for i in range(30)]
    assert two.embed(texts).status == 200
    assert purge(two, texts=["t7"]) == 1
    two.restart()
    assert not held(two, "t7") and held(two, "t8")
    two.kill()
    two.start()
    assert not held(two, "t7") and held(two, "t8")


def test_purge_by_space_leaves_the_others(two):
    assert two.embed(["a", "b"], "m").status == 200
    assert two.embed(["a", "b"], "r", input_type="query").status == 200
    assert purge(two, space="test/r@1") == 2
    assert held(two, "a", "m")
    assert two.embed("a", "r", headers={"Cache-Control": "only-if-cached"}, input_type="query").status == 504


def test_purge_by_text_and_space_takes_both(two):
    two.embed("a", "m")
    two.embed("a", "r", input_type="query")
    assert purge(two, texts=["a"], space="test/m@1") == 1
    assert not held(two, "a")
    assert two.embed("a", "r", headers={"Cache-Control": "only-if-cached"}, input_type="query").status == 200


def test_purge_by_age(two):
    two.embed("old")
    time.sleep(1.5)
    two.embed("young")
    assert purge(two, older_than="1s") == 1
    assert not held(two, "old") and held(two, "young")


def test_after_a_purge_a_fresh_vector_takes_the_place(two, fake):
    two.embed("a")
    fake.fault("drift")
    purge(two, texts=["a"])
    two.embed("a")
    fake.clear()
    assert same_bits(two.embed("a").rows()[0], f("drifted", "none", 8, "a"))


@pytest.mark.parametrize("body", [{}, {"dry_run": True}, {"texts": []}, {"texts": "a"}, {"space": "no/such@1"},
                                  {"texts": ["a"], "nonsense": 1}, {"older_than": "soon"}, []], ids=str)
def test_a_purge_needs_a_filter_that_means_something(two, body):
    two.embed("a")
    assert two.post("/v1/cache/purge", body).status in (400, 404)
    assert held(two, "a")


def test_purge_from_the_command_line(two):
    two.embed(["a", "b"])
    got = two.cli("cache", "purge", "--text", "a", "--yes", "--json")
    assert got.returncode == 0 and json.loads(got.stdout)["purged"] == 1, got
    assert not held(two, "a") and held(two, "b")
    assert two.cli("cache", "purge").returncode == 2


# ---- why ----

def test_why_says_which_spaces_and_roles_are_held(two):
    two.embed("the text", "m")
    two.embed("the text", "r", input_type="query")
    got = two.cli("cache", "why", "the text", "--json")
    assert got.returncode == 0, got
    said = got.stdout
    json.loads(said)
    assert "test/m@1" in said and "test/r@1" in said and "query" in said and '"document"' not in said
    plain = two.cli("cache", "why", "the text")
    assert plain.returncode == 0 and "test/m@1" in plain.stdout


@pytest.mark.parametrize("asked,word", [("the text\n", "newline"), ("The Text", "case"), (" the text", "space")])
def test_why_says_how_a_near_miss_differs(two, asked, word):
    two.embed("the text")
    got = two.cli("cache", "why", asked, "--json")
    assert got.returncode in (0, 1), got
    said = got.stdout.lower()
    assert word in said, said


def test_stats_of_the_cache(two):
    two.embed(["a", "b"])
    two.embed(["a", "b"])
    got = two.get("/v1/cache")
    assert got.status == 200
    assert got.json()["rows"] == 2
    shown = two.cli("cache", "stats", "--json")
    assert shown.returncode == 0 and json.loads(shown.stdout)["rows"] == 2


def test_spaces_providers_and_usage_are_shown(two, fake):
    two.embed(["a b c", "d"])
    two.embed(["a b c"])
    spaces = two.get("/v1/spaces")
    assert spaces.status == 200 and b"test/m@1" in spaces.body and b"test/r@1" in spaces.body
    providers = two.get("/v1/providers")
    assert providers.status == 200 and b'"fake"' in providers.body
    usage = two.get("/v1/usage")
    assert usage.status == 200 and b"test/m@1" in usage.body
    openapi = two.get("/openapi.json").json()
    assert openapi["openapi"].startswith("3.") and "/v1/embeddings" in openapi["paths"]
