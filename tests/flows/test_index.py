"""Approximate search from outside. Goal: an index changes how long an answer takes and nothing else that a client relies on: answers are
as long as they could be, scores are exact, writes are found at once, deletes never come back; what is asked for is what is built,
and what is shown is true.
Method: seeded rows in clusters; `params.exact` of the same server is the oracle (tests/flows/indexed.py). VECKEEP_SEED replays."""
import pathlib
import random
import threading
import time

import numpy as np
import pytest

import procs
from indexed import (DIMS, OFF, SMALL, check_scores, clustered, create, gen_files, ids, index, indexes, point, put, recall, search, searches,
                     status, wait, wait_green, wait_measured)
from qdrant_http import ask, error
from seeds import SEED

BIG = 20000
FAISS = pathlib.Path(procs.VECKEEP).with_name("vk_faiss.so").exists()


@pytest.fixture
def rng():
    return np.random.default_rng(SEED)


def payload(i):
    return {"n": i, "mod": i % 1000, "half": i % 2, "group": i % 40}


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A server with 20,000 rows, indexed in bulk; tests that share it only read."""
    server = procs.Server(tmp_path_factory.mktemp("big"), {"providers": {}})
    rng = np.random.default_rng(SEED)
    rows = clustered(rng, BIG)
    create(server, optimizers_config=OFF)
    for field in ("n", "mod", "half", "group"):
        ask(server, "PUT", "/collections/c/index?wait=true", {"field_name": field, "field_schema": "integer"})
    put(server, "c", [point(i, rows[i], payload(i)) for i in range(BIG)])
    wait_green(server)
    before = ask(server, "GET", "/collections/c")["result"]
    assert index(server)["state"] == "idle" and not gen_files(server)
    ask(server, "PATCH", "/collections/c", {"optimizers_config": {"indexing_threshold": 1000}, "hnsw_config": {"full_scan_threshold": 10}})
    seen = wait_green(server)
    wait_measured(server)
    yield server, rows, before, seen
    code = server.stop()
    assert code == 0, server.log(80)


def queries(rows, n, seed=0):
    rng = np.random.default_rng([SEED, seed])
    return rows[rng.integers(0, len(rows), n)] + 0.3 * rng.standard_normal((n, DIMS)).astype(np.float32)


# ---- what is built, and shown ----

def test_a_threshold_that_is_crossed_turns_a_collection_yellow_then_green(big):
    server, rows, before, seen = big
    assert before["indexed_vectors_count"] == 0 and before["status"] == "green"
    assert seen == ["yellow", "green"], seen
    result = ask(server, "GET", "/collections/c")["result"]
    assert result["indexed_vectors_count"] == result["points_count"] == BIG and result["optimizer_status"] == "ok"
    i = result["veckeep"]["index"][""]
    assert i["engine"] == "graph" and i["state"] == "ready" and i["serving"] and i["rows"] == i["rows_total"] == BIG and i["pending"] == 0
    assert i["rows_min"] == 1000 * 1024 // (4 * DIMS) and i["bytes"] > BIG * DIMS // 2 and i["build_ms"] > 0 and i["error"] is None
    assert i["recall"]["target"] == 0.97 and i["recall"]["measured"] >= 0.97 and i["recall"]["queries"] >= 50
    assert [p["ef"] for p in i["recall"]["curve"]] == sorted(p["ef"] for p in i["recall"]["curve"])
    got = ask(server, "GET", "/collections/c/optimizations?with=queued,completed,idle_segments")["result"]
    assert got["running"] == [] and got["summary"]["queued_optimizations"] == 0 and len(got["idle_segments"]) == 1


def test_metrics_tell_of_every_index(big):
    server, rows, *_ = big
    of = {"collection": "c", "vector": ""}
    assert server.metric("veckeep_index_rows", **of) == BIG and server.metric("veckeep_index_pending", **of) == 0
    assert server.metric("veckeep_index_bytes", **of) == index(server)["bytes"]
    assert server.metric("veckeep_index_recall", **of) == index(server)["recall"]["measured"] and server.metric("veckeep_index_recall_target", **of) == 0.97
    assert server.metric("veckeep_index_serving", **of) == 1 and server.metric("veckeep_index_building", **of) == 0
    before = server.metric("veckeep_index_searches_total", path="approximate", **of), server.metric("veckeep_index_searches_total", path="exact", **of)
    search(server, rows[0])
    search(server, rows[0], filter={"must": [{"key": "n", "range": {"lt": 20}}]})  # few: scanned
    search(server, rows[0], exact=True)  # no index was asked
    after = server.metric("veckeep_index_searches_total", path="approximate", **of), server.metric("veckeep_index_searches_total", path="exact", **of)
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


# ---- answers ----

def test_default_search_finds_what_exact_search_finds_with_its_scores(big):
    server, rows, *_ = big
    before = searches(server)
    # The width was chosen for 0.97 on a hundred sampled rows; other queries, another hundred: 0.02 is noise.
    got = recall(server, queries(rows, 300))
    after = searches(server)
    assert got >= 0.94, got
    assert after[0] - before[0] == 300 and after[1] == before[1], "the index did not answer"
    for limit in (1, 3, 100, 1000):
        got = recall(server, queries(rows, 100, limit), limit)
        assert got >= 0.9, (limit, got)


def test_a_wider_search_finds_more_and_an_asked_for_recall_is_reached(big):
    server, rows, *_ = big
    some = queries(rows, 40, 1)
    by_ef = {ef: recall(server, some, check=False, params={"hnsw_ef": ef}) for ef in (1, 16, 128, 1024, 10**9)}
    assert by_ef[1024] >= 0.995 and by_ef[10**9] >= 0.995, by_ef
    assert by_ef[1] <= by_ef[128] + 0.01 and by_ef[16] <= by_ef[1024] + 0.01, by_ef
    for want in (0.5, 0.9, 0.999):
        got = recall(server, some, check=False, params={"recall": want})
        assert got >= want - 0.03, (want, got)
    assert recall(server, some[:5], params={"indexed_only": True}) >= 0.9
    assert recall(server, some[:5], params={"quantization": {"rescore": False}}) >= 0.9


@pytest.mark.parametrize("params, status_, word", [
    ({"recall": 0.4}, 422, "params.recall"), ({"recall": 1}, 422, "params.recall"), ({"recall": "high"}, 400, "recall"),
    ({"hnsw_ef": 0}, 422, "params.hnsw_ef"), ({"hnsw_ef": -1}, 400, "hnsw_ef"), ({"hnsw_ef": "wide"}, 400, "hnsw_ef"),
    ({"indexed_only": 1}, 400, "indexed_only"), ({"exact": "no"}, 400, "exact"),
])
def test_nonsense_in_params_is_refused_by_name(big, params, status_, word):
    server, rows, *_ = big
    assert word in error(server, "POST", "/collections/c/points/query", {"query": rows[0].tolist(), "params": params}, status_)


FILTERS = [
    ("0.1 %", {"must": [{"key": "mod", "match": {"value": 7}}]}, 20),
    ("1 %", {"must": [{"key": "mod", "range": {"lt": 10}}]}, 200),
    ("5 %", {"must": [{"key": "group", "match": {"any": [3, 17]}}]}, 1000),
    ("20 %", {"must": [{"key": "mod", "range": {"gte": 800}}]}, 4000),
    ("50 %", {"must": [{"key": "half", "match": {"value": 1}}]}, 10000),
    ("a corner", {"must": [{"key": "n", "range": {"lt": 2500}}]}, 2500),
    ("nothing", {"must": [{"key": "n", "range": {"lt": 0}}]}, 0),
]


@pytest.mark.parametrize("name, filter, matches", FILTERS, ids=[f[0] for f in FILTERS])
def test_a_filter_neither_shortens_an_answer_nor_costs_recall(big, name, filter, matches):
    server, rows, *_ = big
    some = queries(rows, 40, 2)
    plain = recall(server, some, check=False)
    for limit in (10, 50):
        for row in some[:5]:
            found = search(server, row, limit, filter=filter)
            assert len(found) == min(limit, matches)
            check_scores(server, row, found)
    got = recall(server, some, filter=filter, check=False)
    assert got >= plain - 0.02 - 0.02, (got, plain)  # two points, and noise of 400 answers


def test_thresholds_offsets_and_batches_cut_the_same_answer(big):
    server, rows, *_ = big
    wide = {"params": {"hnsw_ef": 512}}
    for row in queries(rows, 5, 3):
        whole = search(server, row, 60, params={"hnsw_ef": 512})
        q = [float(x) for x in row]
        got = ask(server, "POST", "/collections/c/points/query", {"query": q, "limit": 20, "offset": 15, **wide})["result"]["points"]
        assert len(got) == 20 and got[-1]["score"] <= whole[14]["score"]
        cut = whole[25]["score"]
        got = ask(server, "POST", "/collections/c/points/query", {"query": q, "limit": 60, "score_threshold": cut, **wide})["result"]["points"]
        assert got and all(p["score"] > cut for p in got) and len(got) >= 20
        found = ask(server, "POST", "/collections/c/points/search", {"vector": q, "limit": 10, "params": {"hnsw_ef": 512}})["result"]
        assert [p["score"] for p in found] == [p["score"] for p in whole[:10]]
    some = queries(rows, 30, 4)
    for filter in (None, FILTERS[4][1]):
        more = {"filter": filter} if filter else {}
        batch = ask(server, "POST", "/collections/c/points/query/batch", {"searches": [
            {"query": [float(x) for x in row], "limit": 5 + i, **wide, **more} for i, row in enumerate(some)]})["result"]
        for i, row in enumerate(some):
            alone = search(server, row, 5 + i, params={"hnsw_ef": 512}, **more)
            assert batch[i]["points"] == alone


def test_groups_prefetches_fusion_and_lookup_stand_on_the_index(big):
    server, rows, *_ = big
    a, b = ([float(x) for x in row] for row in queries(rows, 2, 5))
    wide = {"params": {"hnsw_ef": 1024}}
    exact = {"params": {"exact": True}}

    def both(path, body):
        """The same question through the index and exactly; `params` stand wherever a vector is searched for."""
        def with_params(x, p):
            if isinstance(x, list):
                return [with_params(y, p) for y in x]
            if not isinstance(x, dict):
                return x
            out = {k: with_params(v, p) for k, v in x.items()}
            return {**out, **p} if isinstance(x.get("query"), (list, int)) else out
        return [ask(server, "POST", f"/collections/c/points/{path}", with_params(body, p))["result"] for p in (wide, exact)]

    got, want = both("query/groups", {"query": a, "group_by": "group", "limit": 5, "group_size": 3})
    assert [g["id"] for g in got["groups"]] == [g["id"] for g in want["groups"]] and got == want
    for fusion in ("rrf", "dbsf"):
        got, want = both("query", {"prefetch": [{"query": a, "limit": 30}, {"query": b, "limit": 30, "filter": FILTERS[4][1]}],
                                   "query": {"fusion": fusion}, "limit": 10})
        assert ids(got["points"]) == ids(want["points"])
    got, want = both("query", {"prefetch": {"query": a, "limit": 100}, "query": b, "limit": 10})
    assert got == want
    got, want = both("query", {"query": 77, "limit": 10})
    assert got == want and 77 not in ids(got["points"])
    create(server, "other")
    put(server, "other", [point(1, rows[123])])
    got, want = both("query", {"query": 1, "lookup_from": {"collection": "other"}, "limit": 10})
    assert got == want and got["points"][0]["id"] == 123
    ask(server, "DELETE", "/collections/other")


# ---- writes ----

def small(server, rng, n=3000, name="c", distance="Cosine", **more):
    rows = clustered(rng, n)
    create(server, name, distance, **{**SMALL, **more})
    put(server, name, [point(i, rows[i], payload(i)) for i in range(n)])
    wait_green(server, name)
    return rows


@pytest.mark.parametrize("distance", ["Cosine", "Dot", "Euclid"])
def test_writes_are_found_by_the_next_search_while_the_index_is_behind(plain, rng, distance):
    rows = small(plain, rng, distance=distance)
    sign = -1 if distance == "Euclid" else 1
    pending = []

    def nearest(row, n=5):
        found = search(plain, row, n, params={"hnsw_ef": 256})
        assert [sign * p["score"] for p in found] == sorted((sign * p["score"] for p in found), reverse=True)
        return ids(found)

    new = clustered(rng, 1200) * (3 if distance == "Dot" else 1)
    for at in range(0, 1200, 100):  # points that are new
        put(plain, "c", [point(10000 + at + i, new[at + i]) for i in range(100)])
        assert 10000 + at + 50 in nearest(new[at + 50])
        pending.append(index(plain)["pending"])
    assert max(pending) > 0, "the index was never behind"
    gone = list(range(0, 600))
    for at in range(0, 600, 100):  # points that go
        ask(plain, "POST", "/collections/c/points/delete?wait=true", {"points": gone[at:at + 100]})
        for i in rng.integers(at, at + 100, 5):
            assert int(i) not in nearest(rows[i], 20)
    moved = {i: new[i - 600] + 0.01 for i in range(600, 900)}
    put(plain, "c", [point(i, row) for i, row in moved.items()])  # points that move
    for i in (600, 700, 899):
        assert i in nearest(moved[i], 10)
        if distance == "Cosine":
            assert ids(search(plain, rows[i], 1, params={"hnsw_ef": 256})) != [i]
    wait_green(plain)
    i = index(plain)
    assert i["rows"] == i["rows_total"] == 3000 + 1200 - 600 and i["pending"] == 0
    gone = set(gone)
    for row in list(rows[:40]) + list(new[:40]):  # and never come back
        assert not gone & set(nearest(row, 50))
    if distance == "Cosine":
        assert recall(plain, queries(rows, 30, 6)) >= 0.9


def test_points_past_their_time_are_gone_from_the_index_too(plain, rng):
    rows = clustered(rng, 2000)
    create(plain, **SMALL, metadata={"veckeep": {"ttl": {"field": "until"}}})
    soon = time.time() + 4
    put(plain, "c", [point(i, rows[i], {"until": soon if i % 2 else soon + 3600}) for i in range(2000)])
    wait_green(plain)
    assert any(i % 2 for i in ids(search(plain, rows[1], 20)))
    time.sleep(max(0, soon - time.time()) + 0.1)
    for row in rows[:20]:
        found = search(plain, row, 20)
        assert len(found) == 20 and not any(p["id"] % 2 for p in found)
    wait(lambda: index(plain)["rows_total"] == 1000, 30, "the sweeper")
    wait_green(plain)
    assert index(plain)["rows"] == 1000 and recall(plain, rows[:20]) >= 0.9


# ---- what is asked for ----

def patch(server, body, name="c"):
    return ask(server, "PATCH", f"/collections/{name}", body)


def test_indexes_are_turned_off_and_on_by_the_config(plain, rng):
    rows = small(plain, rng)
    assert index(plain)["serving"] and gen_files(plain)
    for off, on in (({"hnsw_config": {"m": 0}}, {"hnsw_config": {"m": 16}}),
                    ({"optimizers_config": {"indexing_threshold": 0}}, {"optimizers_config": {"indexing_threshold": 10}}),
                    ({"metadata": {"veckeep": {"index": {"engine": "none"}}}}, {"metadata": {"veckeep": {"index": {"engine": "graph"}}}})):
        patch(plain, off)
        wait(lambda: not index(plain)["serving"] and not gen_files(plain), 20, f"the index to go: {off}")
        assert status(plain) == "green" and index(plain)["engine"] == "none"
        assert recall(plain, rows[:5]) == 1.0
        patch(plain, on)
        assert status(plain) == "yellow"
        wait_green(plain)
        assert index(plain)["serving"] and index(plain)["rows"] == 3000 and len(gen_files(plain)) == 1


def test_another_plan_is_built_without_a_gap_in_answers(plain, rng):
    rows = small(plain, rng)
    stop, wrong, asked = threading.Event(), [], []

    def keep_asking():
        client = plain.client()
        while not stop.is_set():
            i = len(asked) % 3000
            got = client.request("POST", "/collections/c/points/query", {"query": rows[i].tolist(), "limit": 3, "params": {"hnsw_ef": 256}},
                                 plain.headers())
            asked.append(i)
            if got.status != 200 or got.json()["result"]["points"][0]["id"] != i:
                wrong.append((i, got))

    thread = threading.Thread(target=keep_asking, daemon=True)
    thread.start()
    built = index(plain)["detail"]
    patch(plain, {"hnsw_config": {"ef_construct": 300, "m": 24}})
    assert index(plain)["serving"] and index(plain)["state"] == "building"
    wait_green(plain)
    assert index(plain)["detail"] != built and "degree 48" in index(plain)["detail"]
    stop.set()
    thread.join(20)
    assert not wrong and len(asked) > 20, (len(asked), wrong[:3])
    assert len(gen_files(plain)) == 1


def test_a_build_can_be_given_up_and_asked_for_again(plain, rng):
    rows = clustered(rng, 6000)
    create(plain, optimizers_config=OFF, hnsw_config={"full_scan_threshold": 10, "m": 64, "ef_construct": 800})
    put(plain, "c", [point(i, rows[i]) for i in range(6000)])
    path = "/v1/collections/c/index"
    ask(plain, "POST", path + "/cancel", status=409)
    ask(plain, "POST", path + "/rebuild", status=409)
    patch(plain, {"optimizers_config": {"indexing_threshold": 10}})
    shown = wait(lambda: index(plain)["progress"], 20, "a build")
    assert shown["total"] >= shown["done"] >= 0
    running = ask(plain, "GET", "/collections/c/optimizations")["result"]["running"]
    assert len(running) == 1 and running[0]["status"] == "optimizing" and running[0]["segments"][0]["points_count"] == 6000
    assert plain.metric("veckeep_index_building", collection="c") == 1 and plain.metric("veckeep_index_build_progress", collection="c") < 1
    assert recall(plain, rows[:3]) == 1.0  # exactly, meanwhile
    ask(plain, "POST", path + "/cancel", {})
    wait(lambda: index(plain)["state"] == "cancelled", 20, "the build to be given up")
    assert status(plain) == "grey" and not index(plain)["serving"] and recall(plain, rows[:3]) == 1.0
    time.sleep(1)
    assert index(plain)["state"] == "cancelled"  # nobody begins it again unasked
    ask(plain, "POST", path + "/rebuild", {"vector": ""})
    assert status(plain) == "yellow"
    ask(plain, "PATCH", path, {"engine": "none"})  # in the middle of it
    wait(lambda: status(plain) == "green", 20, "the build to end with the wish for it")
    assert index(plain)["state"] == "idle" and not gen_files(plain)
    ask(plain, "PATCH", path, {"engine": "graph", "profile": "s8"})
    wait_green(plain)
    assert index(plain)["rows"] == 6000 and len(gen_files(plain)) == 1


def test_an_index_object_is_kept_shown_patched_and_checked(plain):
    one = {"profile": "s8", "recall": 0.9}
    create(plain, metadata={"veckeep": {"index": one}, "team": "x"})
    config = ask(plain, "GET", "/collections/c")["result"]["config"]
    assert config["metadata"]["veckeep"]["index"] == {"": one} and config["metadata"]["team"] == "x"
    assert ask(plain, "GET", "/v1/collections/c")["vectors"][""]["index"] == one
    path = "/v1/collections/c/index"
    got = ask(plain, "PATCH", path, {"recall": 0.8, "profile": None})
    assert got["index"][""]["recall"]["target"] == 0.8
    assert ask(plain, "GET", "/v1/collections/c")["vectors"][""]["index"] == {"recall": 0.8}
    patch(plain, {"metadata": {"veckeep": {"index": {"": None}}}})
    assert "index" not in ask(plain, "GET", "/v1/collections/c")["vectors"][""]
    for body, word in (({"engine": "hnsw"}, "index.engine"), ({"profile": "s2"}, "index.profile"), ({"recall": 0.1}, "index.recall"),
                       ({"recall": "most"}, "index.recall"), ({"engine": "faiss"}, "index.factory"), ({"factory": ""}, "index.factory"),
                       ({"engine": "faiss", "factory": "IVF16,Wat"}, "Wat"), ({"nprobe": 0}, "index.nprobe"), ({"train_rows": 1.5}, "index.train_rows")):
        got = ask(plain, "PATCH", path, body, 422)
        assert word in got["error"]["message"], (body, got)
        assert word in error(plain, "PATCH", "/collections/c", {"metadata": {"veckeep": {"index": body}}}, 422)
        assert word in error(plain, "PUT", "/collections/bad", {"vectors": {"size": 8, "distance": "Dot"},
                                                               "metadata": {"veckeep": {"index": body}}}, 422)
    ask(plain, "PATCH", path, {"m": 16}, 400)
    ask(plain, "PATCH", path, {"vector": "nope"}, 400)
    ask(plain, "PATCH", path, {"vector": 1}, 400)
    error(plain, "PATCH", "/collections/c", {"metadata": {"veckeep": {"index": "graph"}}}, 422)
    error(plain, "PATCH", "/collections/c", {"metadata": {"veckeep": {"index": {"": {}, "nope": {}}}}}, 400)
    assert "index" not in ask(plain, "GET", "/v1/collections/c")["vectors"][""]
    create(plain, "l1", "Manhattan")
    assert "Manhattan" in ask(plain, "PATCH", "/v1/collections/l1/index", {"engine": "graph"}, 422)["error"]["message"]
    assert index(plain, "l1")["engine"] == "none"
    ask(plain, "PATCH", "/v1/collections/nope/index", {"engine": "none"}, 404)
    plain.restart()
    create(plain, "two", metadata={"veckeep": {"index": {"recall": 0.5}}})
    assert ask(plain, "GET", "/v1/collections/two")["vectors"][""]["index"] == {"recall": 0.5}


@pytest.mark.skipif(not FAISS, reason="no vk_faiss.so beside the program")
def test_two_named_vectors_have_engines_of_their_own(plain, rng):
    a, b = clustered(rng, 3000), clustered(rng, 3000, 32)
    ask(plain, "PUT", "/collections/c", {"vectors": {"a": {"size": DIMS, "distance": "Cosine"}, "b": {"size": 32, "distance": "Euclid"}}, **SMALL,
                                         "metadata": {"veckeep": {"index": {"b": {"engine": "faiss", "factory": "IVF32,SQ8"}}}}})
    put(plain, "c", [{"id": i, "vector": {"a": a[i].tolist(), "b": b[i].tolist()}} for i in range(3000)], 1000)
    ask(plain, "PATCH", "/v1/collections/c/index", {"engine": "none"}, 400)  # of which?
    wait_green(plain)
    shown = indexes(plain)["index"]
    assert shown["a"]["engine"] == "graph" and shown["b"]["engine"] == "faiss" and "IVF32,SQ8" in shown["b"]["detail"]
    assert ask(plain, "GET", "/collections/c")["result"]["indexed_vectors_count"] == 6000
    wait_measured(plain, vector="b")
    for name, rows in (("a", a), ("b", b)):
        before = searches(plain, vector=name)
        good = 0
        for row in rows[:40]:
            found, truth = search(plain, row, using=name), search(plain, row, exact=True, using=name)
            scores = {p["id"]: p["score"] for p in search(plain, row, 10, exact=True, using=name, filter={"must": [{"has_id": ids(found)}]})}
            assert {p["id"]: p["score"] for p in found} == scores and len(found) == 10
            good += len(set(ids(found)) & set(ids(truth)))
        assert good >= 0.9 * 400, (name, good)
        assert searches(plain, vector=name)[0] - before[0] == 40
    measured = index(plain, vector="b")["recall"]["ef"]
    for nprobe in (1, measured + 5, None):  # as wide as is said, without a build
        ask(plain, "PATCH", "/v1/collections/c/index", {"vector": "b", "nprobe": nprobe})
        wait(lambda: index(plain, vector="b")["recall"]["ef"] == (nprobe or measured), 10, f"nprobe {nprobe}")
        for row in b[:20]:
            assert search(plain, row, using="b") == search(plain, row, using="b", params={"hnsw_ef": nprobe or measured})
    # FAISS does not grow: what is new is searched exactly, and counted.
    put(plain, "c", [{"id": 5000 + i, "vector": {"a": (a[i] * -1).tolist(), "b": (b[i] + 40).tolist()}} for i in range(300)], 300)
    assert 5007 in ids(search(plain, b[7] + 40, 3, using="b")) and 5007 in ids(search(plain, a[7] * -1, 3, using="a"))
    ask(plain, "POST", "/collections/c/points/delete?wait=true", {"points": [7]})
    assert 7 not in ids(search(plain, b[7], 10, using="b")) and 7 not in ids(search(plain, a[7], 10, using="a"))
    wait(lambda: index(plain, vector="b")["pending"] == 301, 20, "the changes to be counted")
    wait_green(plain)
    ask(plain, "POST", "/v1/collections/c/index/rebuild", {"vector": "b"})
    wait_green(plain)
    assert index(plain, vector="b")["pending"] == 0 and index(plain, vector="b")["rows"] == 3299
    ask(plain, "PATCH", "/v1/collections/c/index", {"vector": "b", "engine": "graph"})
    wait_green(plain)
    assert index(plain, vector="b")["engine"] == "graph" and 5007 in ids(search(plain, b[7] + 40, 3, using="b"))
    ask(plain, "DELETE", "/collections/c/vectors/b?wait=true")
    wait(lambda: len(gen_files(plain)) == 1, 20, "the file of the vector that went")


# ---- the command line ----

def test_the_command_line_shows_and_steers(plain, rng):
    import json
    rows = small(plain, rng)
    wait_measured(plain)
    got = plain.cli("collections", "index", "c")
    assert got.returncode == 0 and "ready" in got.stdout and "3,000" in got.stdout and "graph" in got.stdout, got
    got = plain.cli("collections", "index", "c", "--json")
    assert json.loads(got.stdout)["index"][""]["rows"] == 3000
    got = plain.cli("collections", "index", "c", "--profile", "s8", "--recall", "0.9", "--wait", "--json")
    assert got.returncode == 0, got
    assert json.loads(got.stdout)["status"] == "green"
    assert ask(plain, "GET", "/v1/collections/c")["vectors"][""]["index"] == {"profile": "s8", "recall": 0.9}
    wait_measured(plain)
    was = index(plain)["recall"]
    plain.cli("collections", "index", "c", "--recall", "0.5")  # a target needs no build
    wait(lambda: index(plain)["recall"]["target"] == 0.5 and index(plain)["recall"]["ef"] <= was["ef"], 10, "the new target")
    plain.cli("collections", "index", "c", "--recall", "0.9")
    got = plain.cli("collections", "index", "c", "--rebuild", "--wait")
    assert got.returncode == 0 and "ready" in got.stdout, got
    assert plain.cli("collections", "index", "c", "--cancel").returncode == 1
    assert plain.cli("collections", "index", "c", "--engine", "none").returncode == 0
    wait(lambda: not index(plain)["serving"], 20, "the index to go")
    assert plain.cli("collections", "index", "c", "--rebuild").returncode == 1
    for args, code in ((("c", "--recall", "much"), 2), (("c", "--rebuild", "--cancel"), 2), (("c", "--engine", "hnsw"), 1), (("nope",), 1), ((), 2)):
        got = plain.cli("collections", "index", *args)
        assert got.returncode == code and got.stderr, (args, got)
    assert "--factory" in plain.cli("collections", "index", "--help").stdout
    assert recall(plain, rows[:3]) == 1.0
