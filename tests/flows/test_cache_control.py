"""Cache-Control of the request, and what the answer says about the cache. Method: the fake counts."""
import time

import procs
from vectors import f, same_bits
from wire import positions_of


def said(server, value, texts, **more):
    return server.embed(texts, headers={"Cache-Control": value}, **more)


def test_only_if_cached_answers_hits_and_names_what_is_missing(server, fake, check):
    check(server.embed(["a", "c"]), ["a", "c"])
    check(said(server, "only-if-cached", ["c", "a"]), ["c", "a"])
    got = said(server, "only-if-cached", ["a", "b", "c", "d"])
    assert got.status == 504, got
    assert positions_of(got.error) == [1, 3]
    assert fake.stats()["inputs"] == 2


def test_no_cache_asks_anew_and_keeps_the_stored_row(server, fake, check):
    check(server.embed(["a", "b"]), ["a", "b"])
    fake.fault("drift")
    got = said(server, "no-cache", ["a", "new"])
    assert same_bits(got.rows()[0], f("drifted", "none", 8, "a"))
    assert fake.count("a") == 2
    fake.clear()
    check(server.embed("a"), ["a"])
    assert fake.count("a") == 2
    assert same_bits(server.embed("new").rows()[0], f("drifted", "none", 8, "new")), "its first answer is kept"


def test_no_store_keeps_nothing_and_may_use_what_is_there(server, fake, check):
    check(said(server, "no-store", "a"), ["a"])
    assert server.embed_cached("a").status == 504
    check(server.embed("b"), ["b"])
    check(said(server, "no-store", "b"), ["b"])
    assert fake.count("b") == 1


def test_max_age_takes_only_young_rows(server, fake, check):
    check(server.embed("a"), ["a"])
    time.sleep(1.2)
    check(said(server, "max-age=3600", "a"), ["a"])
    assert fake.count("a") == 1
    check(said(server, "max-age=1", "a"), ["a"])
    assert fake.count("a") == 2
    check(said(server, "max-age=0", "a"), ["a"])
    assert fake.count("a") == 3


def test_directives_combine_and_unknown_ones_are_ignored(server, fake, check):
    check(said(server, "no-cache, no-store", "a"), ["a"])
    assert server.embed_cached("a").status == 504
    check(said(server, "No-Transform , stale-if-error=5", "a"), ["a"])
    check(said(server, "ONLY-IF-CACHED", "a"), ["a"])


def test_a_malformed_max_age_is_refused_or_ignored_but_never_a_wrong_answer(server, check):
    for value in ("max-age=", "max-age=x", "max-age=-1", "max-age=99999999999999999999", ","):
        got = said(server, value, "a")
        assert got.status in (200, 400), (value, got)
        if got.status == 200:
            check(got, ["a"])


def test_the_answer_says_what_came_from_where(server, check):
    got = server.embed(["a", "b", "a"])
    check(got, ["a", "b", "a"])
    assert sum(got.cache.values()) == 3 and got.cache["hits"] == 0
    assert got.headers["x-veckeep-space"] == "test/m@1" and got.headers["x-veckeep-provider"] == "fake"
    again = server.embed(["a", "b", "c"])
    assert again.cache == {"hits": 2, "misses": 1, "coalesced": 0}
    assert "veckeep" in again.headers["cache-status"].lower()
    hit = server.embed("a")
    assert "hit" in hit.headers["cache-status"].lower()
    assert "server-timing" in hit.headers and hit.headers.get("x-request-id")


def test_a_spaces_ttl_ends_a_row(serve, fake, check):
    server = serve(procs.config(fake, space_more={"ttl": "1s"}))
    check(server.embed("a"), ["a"])
    assert server.embed_cached("a").status == 200
    time.sleep(1.3)
    assert server.embed_cached("a").status == 504
    check(server.embed("a"), ["a"])
    assert fake.count("a") == 2


def test_rows_outlive_the_server(server, fake, check):
    texts = [f"t{i}" for i in range(300)]
    check(server.embed(texts), texts)
    server.restart()
    check(server.embed_cached(texts), texts)
    assert fake.stats()["inputs"] == 300


def test_the_byte_budget_is_kept_and_serving_goes_on(make_fake, serve, check):
    fake = make_fake(dims=1536)
    server = serve(procs.config(fake, cache={"max_bytes": "16MiB"}))
    for i in range(0, 12000, 250):  # 74 MB of rows
        texts = [f"row {j}" for j in range(i, i + 250)]
        got = server.embed(texts, encoding_format="base64")
        assert got.status == 200, got
        assert same_bits(got.rows()[7], f("m", "none", 1536, texts[7]))
    size = sum(p.stat().st_size for p in (server.data / "cache").rglob("*") if p.is_file())
    # The budget is of pages in use; the file is allocated ahead of a commit by at most one batch and an eighth, and a batch is what
    # came while the disk was busy: 1.5 MB on a quiet machine, 10 MB were seen on a loaded one.
    assert server.get("/v1/cache").json()["used_bytes"] <= 16 << 20
    assert size <= (16 << 20) * 9 / 8 + (22 << 20), f"{size >> 20} MiB in the cache directory"
    assert server.embed_cached("row 11999").status == 200, "the newest row was thrown out"
    check(server.embed("row 0"), ["row 0"], dims=1536)
