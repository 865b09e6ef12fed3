"""Text in place of vectors, and the space that a vector belongs to (DESIGN section 1). Method: the fake provider's vectors are a
function of space, role and text, so every score and every stored vector can be computed here; what was bought is counted there."""
import hashlib
import struct
import threading
import uuid

import numpy as np
import pytest

import procs
from vectors import f, unit

ROLES = {"none": {}, "query": {"value": "query"}, "document": {"value": "document"}}


def two_spaces(fake, **top):
    """Model m -> space a (roles), model n -> space b: the same dims, other vectors."""
    provider = procs.provider(fake, role_field="input_type")
    return procs.config(providers={"fake": provider},
                        spaces={"test/a@1": procs.space(("fake", "m"), roles={"query": {"value": "query"}, "document": {"value": "document"}}),
                                "test/b@1": procs.space(("fake", "n"))},
                        models={"m": "test/a@1", "n": "test/b@1"}, **top)


def put(server, path, body, status=200):
    got = server._client.request("PUT", path, body, server.headers())
    assert got.status == status, (got.status, got.body[:500])
    return got.json()


def post(server, path, body, status=200):
    got = server.post(path, body)
    assert got.status == status, (got.status, got.body[:500])
    return got.json()


def make(server, name="docs", dims=8, distance="Cosine", **more):
    return put(server, f"/collections/{name}", {"vectors": {"size": dims, "distance": distance}, **more})


def info(server, name="docs"):
    return server.get(f"/collections/{name}").json()["result"]


def own(server, name="docs"):
    return server.get(f"/v1/collections/{name}").json()


@pytest.fixture
def spaced(serve, fake):
    server = serve(two_spaces(fake))
    make(server)
    return server


def upsert_texts(server, texts, model="m", name="docs", status=200):
    points = [{"id": i + 1, "vector": {"text": t, "model": model}, "payload": {"text": t}} for i, t in enumerate(texts)]
    return put(server, f"/collections/{name}/points?wait=true", {"points": points}, status)


def cosine(a, b):
    return float(np.dot(unit(a).astype(np.float64), unit(b).astype(np.float64)))


def test_texts_are_embedded_as_documents_and_questions_as_queries(spaced, fake):
    texts = ["one", "two", "three"]
    upsert_texts(spaced, texts)
    assert fake.counts() == {("m", "document", t): 1 for t in texts}
    got = post(spaced, "/collections/docs/points/query", {"query": {"text": "which?", "model": "m"}, "limit": 3})
    assert fake.count("which?") == 1 and fake.counts("query") == {("m", "query", "which?"): 1}
    want = sorted(((cosine(f("m", "query", 8, "which?"), f("m", "document", 8, t)), i + 1) for i, t in enumerate(texts)), reverse=True)
    assert [p["id"] for p in got["result"]["points"]] == [i for _, i in want]
    assert np.allclose([p["score"] for p in got["result"]["points"]], [s for s, _ in want], atol=1e-5)


def test_each_text_is_paid_for_once_whichever_way_it_comes(spaced, fake):
    upsert_texts(spaced, ["a", "b"])
    upsert_texts(spaced, ["a", "b", "c"])
    spaced.embed("c", input_type="document")
    assert fake.stats()["by_text"] == {"a": 1, "b": 1, "c": 1}


def test_the_first_text_binds_the_vector_to_its_space(spaced):
    upsert_texts(spaced, ["a"])
    assert own(spaced)["vectors"][""]["space"] == "test/a@1"
    got = post(spaced, "/collections/docs/points/query", {"query": {"text": "no model needed"}})
    assert len(got["result"]["points"]) == 1


def test_another_space_is_a_409_that_names_both(spaced, fake):
    upsert_texts(spaced, ["a"])
    before = fake.stats()["calls"]
    for got in (upsert_texts(spaced, ["b"], model="n", status=409),
                post(spaced, "/collections/docs/points/query", {"query": {"text": "q", "model": "n"}}, 409)):
        text = got["status"]["error"]
        assert "test/a@1" in text and "test/b@1" in text
    assert fake.stats()["calls"] == before, "nothing is bought for a refused request"
    assert info(spaced)["points_count"] == 1


def test_another_space_of_other_dims_is_a_409_that_names_both(serve, fake):
    provider = procs.provider(fake)
    server = serve(procs.config(providers={"fake": provider},
                                spaces={"test/a@1": procs.space(("fake", "m")), "test/c@1": procs.space(("fake", "o"), dims=16)},
                                models={"m": "test/a@1", "o": "test/c@1"}))
    make(server)
    make(server, "other", dims=16, metadata={"veckeep": {"spaces": {"": "test/c@1"}}})
    put(server, "/collections/other/points?wait=true", {"points": [{"id": 1, "vector": [0.5] * 16}]})
    post(server, "/collections/docs/points/query", {"query": {"text": "q", "model": "o"}}, 400)     # of no space yet: only dims
    upsert_texts(server, ["a"])
    before = fake.stats()["calls"]
    for got in (upsert_texts(server, ["b"], model="o", status=409),
                post(server, "/collections/docs/points/query", {"query": {"text": "q", "model": "o"}}, 409),
                post(server, "/collections/docs/points/query", {"query": 1, "lookup_from": {"collection": "other"}}, 409)):
        text = got["status"]["error"]
        assert "test/a@1" in text and "test/c@1" in text
    assert fake.stats()["calls"] == before, "nothing is bought for a refused request"


def test_raw_vectors_are_recognised_by_where_they_came_from(spaced):
    upsert_texts(spaced, ["a"])
    mine = spaced.embed("raw", input_type="document").rows()[0].tolist()
    theirs = spaced.embed("raw", model="n").rows()[0].tolist()
    put(spaced, "/collections/docs/points?wait=true", {"points": [{"id": 7, "vector": mine}]})
    got = put(spaced, "/collections/docs/points?wait=true", {"points": [{"id": 8, "vector": theirs}]}, 409)
    assert "test/a@1" in got["status"]["error"] and "test/b@1" in got["status"]["error"]
    post(spaced, "/collections/docs/points/query", {"query": mine})
    post(spaced, "/collections/docs/points/query", {"query": theirs}, 409)
    post(spaced, "/collections/docs/points/search", {"vector": theirs, "limit": 3}, 409)
    assert info(spaced)["points_count"] == 2


def test_recognised_raw_rows_bind_an_empty_vector(spaced):
    rows = [spaced.embed(t, model="n").rows()[0].tolist() for t in ("x", "y")]
    put(spaced, "/collections/docs/points?wait=true", {"points": [{"id": i, "vector": r} for i, r in enumerate(rows)]})
    assert own(spaced)["vectors"][""]["space"] == "test/b@1"
    upsert_texts(spaced, ["z"], model="m", status=409)


def test_unknown_vectors_are_taken_counted_or_refused_as_the_collection_says(spaced):
    unknown = [0.5] * 8
    got = spaced._client.request("PUT", "/collections/docs/points?wait=true", {"points": [{"id": 1, "vector": unknown}]}, {})
    assert got.status == 200 and got.headers["x-veckeep-unknown-vectors"] == "1"
    text = upsert_texts(spaced, ["a"], status=409)["status"]["error"]
    assert "test/a@1" in text and "metadata" in text, "an operator can say which space they are of"
    make(spaced, "strict", metadata={"veckeep": {"provenance": "require"}})
    put(spaced, "/collections/strict/points?wait=true", {"points": [{"id": 1, "vector": unknown}]}, 409)
    row = spaced.embed("known", model="n").rows()[0].tolist()
    put(spaced, "/collections/strict/points?wait=true", {"points": [{"id": 1, "vector": row}]})
    make(spaced, "loose", metadata={"veckeep": {"provenance": "off"}})
    put(spaced, "/collections/loose/points?wait=true", {"points": [{"id": 1, "vector": unknown}]})


# ---- what became of the vector while a text was being embedded ----

UNKNOWN = [0.5] * 8


def put_while(server, fake, point, slow, between):
    """Upserts a point whose text `slow` takes two seconds to embed, calls between() meanwhile: the request was judged by a config
    that is another one when it is written. Gives its reply."""
    fake.fault("delay", ms=2000, match=slow)
    got = []

    def ask():
        got.append(server.client().request("PUT", "/collections/docs/points?wait=true", {"points": [point]}, server.headers()))

    t = threading.Thread(target=ask)
    t.start()
    fake.wait_in_flight(1)
    between()
    assert not got, "the text was there too soon: nothing was tested"
    t.join()
    fake.clear()
    return got[0]


def test_a_text_is_refused_when_raw_rows_came_while_it_was_embedded(spaced, fake):
    """It was written without a word, unbound, among rows of another origin."""
    point = {"id": 1, "vector": {"text": "slow", "model": "m"}}
    got = put_while(spaced, fake, point, "slow",
                    lambda: put(spaced, "/collections/docs/points?wait=true", {"points": [{"id": 2, "vector": UNKNOWN}]}))
    assert got.status == 409, got.body
    assert got.json()["status"]["error"] == upsert_texts(spaced, ["later"], status=409)["status"]["error"], "the words of any text"
    assert own(spaced)["vectors"][""]["space"] is None and own(spaced)["vectors"][""]["raw"] is True
    assert info(spaced)["points_count"] == 1
    spaced._client.request("PATCH", "/collections/docs", {"metadata": {"veckeep": {"spaces": {"": "test/a@1"}}}}, {})
    put(spaced, "/collections/docs/points?wait=true", {"points": [point]})
    assert fake.count("slow") == 1, "what was bought is kept"


def test_a_text_is_refused_when_another_space_came_while_it_was_embedded(spaced, fake):
    """The refusal left a key without its value in the config's text, and the assertion on that ended the server."""
    got = put_while(spaced, fake, {"id": 1, "vector": {"text": "slow", "model": "m"}}, "slow",
                    lambda: upsert_texts(spaced, ["quick"], model="n"))
    assert got.status == 409 and "test/a@1" in got.body.decode() and "test/b@1" in got.body.decode()
    assert own(spaced)["vectors"][""]["space"] == "test/b@1" and info(spaced)["points_count"] == 1


def test_a_known_row_joins_raw_rows_that_came_meanwhile(serve, fake):
    """As it does when they were there before: only text may not."""
    server = serve(two_spaces(fake))
    one = {"size": 8, "distance": "Cosine"}
    put(server, "/collections/docs", {"vectors": {"row": one, "text": one}})
    known = server.embed("known", model="n").rows()[0].tolist()
    point = {"id": 1, "vector": {"row": known, "text": {"text": "slow", "model": "m"}}}
    got = put_while(server, fake, point, "slow",
                    lambda: put(server, "/collections/docs/points?wait=true", {"points": [{"id": 2, "vector": {"row": UNKNOWN}}]}))
    assert got.status == 200, got.body
    vectors = own(server)["vectors"]
    assert (vectors["row"]["space"], vectors["row"]["raw"]) == (None, True)
    assert (vectors["text"]["space"], vectors["text"]["raw"]) == ("test/a@1", False)
    assert info(server)["points_count"] == 2


def test_binding_changes_nothing_else_of_the_config(serve, fake):
    server = serve(two_spaces(fake))
    put(server, "/collections/docs", {
        "vectors": {"a": {"size": 8, "distance": "Cosine", "on_disk": True, "hnsw_config": {"m": 24},
                          "quantization_config": {"scalar": {"type": "int8", "quantile": 0.9}}},
                    "b": {"size": 8, "distance": "Euclid", "datatype": "float16"}, "c": {"size": 3, "distance": "Dot"}},
        "sparse_vectors": {"words": {"modifier": "idf", "index": {"full_scan_threshold": 77}}},
        "hnsw_config": {"m": 32, "ef_construct": 99}, "optimizers_config": {"indexing_threshold": 12345},
        "quantization_config": {"binary": {"always_ram": True}}, "strict_mode_config": {"enabled": False, "max_query_limit": 50},
        "metadata": {"team": "search", "n": 18446744073709551615, "veckeep": {"spaces": {"b": "test/b@1"}, "provenance": "warn",
                                                                            "ttl": {"field": "at", "after": 60}}}})
    put(server, "/collections/docs/index?wait=true", {"field_name": "city", "field_schema": "keyword"})
    put(server, "/collections/docs/index?wait=true", {"field_name": "n.m", "field_schema": {"type": "integer", "lookup": False}})
    before, ours = info(server), own(server)
    put(server, "/collections/docs/points?wait=true",
        {"points": [{"id": 1, "vector": {"a": {"text": "x", "model": "m"}, "c": [1, 2, 3]}, "payload": {"page_content": "x"}}]})
    after, now = info(server), own(server)
    changed = before["config"]["metadata"]["veckeep"]
    changed["spaces"]["a"] = "test/a@1"
    changed["text_from"] = "page_content"
    assert after["config"] == before["config"]
    assert {k: v["params"] if "params" in v else v["data_type"] for k, v in after["payload_schema"].items()} == \
        {k: v["params"] if "params" in v else v["data_type"] for k, v in before["payload_schema"].items()}
    kept = ("set", "dims", "distance", "datatype")
    assert {n: [v[k] for k in kept] for n, v in now["vectors"].items()} == {n: [v[k] for k in kept] for n, v in ours["vectors"].items()}
    assert {n: (v["space"], v["raw"]) for n, v in now["vectors"].items()} == \
        {"a": ("test/a@1", False), "b": ("test/b@1", False), "c": (None, True)}
    assert now["sparse_vectors"]["words"]["set"] == ours["sparse_vectors"]["words"]["set"]
    assert (now["ttl"], now["provenance"], now["pool"]) == (ours["ttl"], "warn", ours["pool"])


def test_a_binding_can_be_declared_at_creation_and_later(serve, fake):
    server = serve(two_spaces(fake))
    make(server, metadata={"veckeep": {"spaces": {"": "test/b@1"}}, "team": "search"})
    upsert_texts(server, ["a"], model="m", status=409)
    upsert_texts(server, ["a"], model="n")
    assert info(server)["config"]["metadata"]["team"] == "search"
    make(server, "raw")
    put(server, "/collections/raw/points?wait=true", {"points": [{"id": 1, "vector": [1.0] * 8}]})
    got = server._client.request("PATCH", "/collections/raw", {"metadata": {"veckeep": {"spaces": {"": "test/a@1"}}}}, {})
    assert got.status == 200, got.body
    upsert_texts(server, ["a"], model="m", name="raw")
    got = server._client.request("PUT", "/collections/bad", {"vectors": {"size": 4, "distance": "Dot"},
                                                             "metadata": {"veckeep": {"spaces": {"": "test/a@1"}}}}, {})
    assert got.status == 400 and "test/a@1" in got.json()["status"]["error"]


def test_text_from_is_found_at_the_first_write(spaced):
    put(spaced, "/collections/docs/points?wait=true",
        {"points": [{"id": 1, "vector": {"text": "a", "model": "m"}, "payload": {"metadata": {}, "page_content": "a"}}]})
    assert own(spaced)["text_from"] == "page_content"


def test_provider_keys_inside_options_are_refused(spaced, fake):
    for options in ({"openai-api-key": "sk-x"}, {"api_key": "x"}, {"dimensions": 4}):
        got = put(spaced, "/collections/docs/points", {"points": [{"id": 1, "vector": {"text": "a", "model": "m", "options": options}}]}, 400)
        assert "sk-x" not in got["status"]["error"]
    assert fake.stats()["calls"] == 0
    put(spaced, "/collections/docs/points", {"points": [{"id": 1, "vector": {"text": "a", "model": "m", "options": {"dimensions": 8}}}]})


def test_a_model_that_is_not_there_and_an_empty_text_are_clear_errors(spaced):
    assert "nosuch" in upsert_texts(spaced, ["a"], model="nosuch", status=404)["status"]["error"]
    assert "empty" in upsert_texts(spaced, [""], status=400)["status"]["error"]
    got = put(spaced, "/collections/docs/points", {"points": [{"id": 1, "vector": {"text": "a"}}]}, 400)
    assert "model" in got["status"]["error"]


def test_a_provider_that_fails_writes_nothing(spaced, fake):
    fake.fault("status", status=400, count=100)
    got = spaced._client.request("PUT", "/collections/docs/points", {"points": [{"id": 1, "vector": {"text": "a", "model": "m"}}]}, {})
    assert got.status >= 400 and "error" in got.json()["status"]
    fake.clear()
    assert info(spaced)["points_count"] == 0


def test_qdrant_clients_documents_work_unmodified(spaced, fake):
    qdrant_client = pytest.importorskip("qdrant_client")
    m = qdrant_client.models
    client = qdrant_client.QdrantClient(url=spaced.url, cloud_inference=True, check_compatibility=False)
    client.upsert("docs", [m.PointStruct(id=i, vector=m.Document(text=t, model="m"), payload={"text": t}) for i, t in enumerate(["a", "b", "c"])])
    got = client.query_points("docs", query=m.Document(text="b?", model="m"), limit=2)
    want = sorted(("a", "b", "c"), key=lambda t: -cosine(f("m", "query", 8, "b?"), f("m", "document", 8, t)))
    assert [p.payload["text"] for p in got.points] == want[:2]
    assert fake.counts() == {("m", "document", t): 1 for t in "abc"} | {("m", "query", "b?"): 1}
    client.close()


# ---- documents ----

def document(server, doc, chunks, status=200, name="docs", **more):
    return put(server, f"/collections/{name}/documents/{doc}", {"chunks": chunks, "model": "m", **more}, status)


def test_a_document_is_replaced_and_only_what_changed_is_bought(spaced, fake):
    first = document(spaced, "manual", ["intro", "body", "end"], payload={"lang": "en"})["result"]
    assert (first["added"], first["kept"], first["removed"]) == (3, 0, 0)
    second = document(spaced, "manual", ["intro", "body, changed", "end"])["result"]
    assert (second["added"], second["kept"], second["removed"]) == (1, 2, 1)
    assert fake.stats()["by_text"] == {"intro": 1, "body": 1, "end": 1, "body, changed": 1}
    chunks = spaced.get("/collections/docs/documents/manual").json()["result"]["chunks"]
    assert [c["payload"]["text"] for c in chunks] == ["intro", "body, changed", "end"]
    assert [c["payload"]["chunk"] for c in chunks] == [0, 1, 2]
    assert info(spaced)["points_count"] == 3


def chunk_id(doc, text, before):
    made = hashlib.sha256(b"veckeep-chunk\1" + doc.encode() + b"\0" + struct.pack("<I", before) + text.encode()).digest()
    made = bytearray(made[:16])
    made[6] = made[6] & 0x0F | 0x80
    made[8] = made[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(made)))


def test_a_chunks_id_is_made_of_its_document_its_text_and_its_repeat(spaced):
    """Points of a document must be found again by every later release, so the ids are written down here."""
    texts = [f"text {i * i % 37}" for i in range(300)]
    chunks = [{"text": t, "id": 1000 + i} if i % 11 == 3 else t for i, t in enumerate(texts)]
    want = [1000 + i if i % 11 == 3 else chunk_id("manual", t, texts[:i].count(t)) for i, t in enumerate(texts)]
    assert document(spaced, "manual", chunks)["result"]["added"] == len(set(want)) == 300
    got = spaced.get("/collections/docs/documents/manual").json()["result"]["chunks"]
    assert [c["id"] for c in got] == want
    assert [c["payload"]["text"] for c in got] == texts


def test_documents_do_not_touch_each_other(spaced):
    document(spaced, "a", ["same", "same", "x"])
    document(spaced, "b", ["same"])
    assert info(spaced)["points_count"] == 4
    got = spaced._client.request("DELETE", "/collections/docs/documents/a", None, {})
    assert got.status == 200 and got.json()["result"]["removed"] == 3
    assert spaced.get("/collections/docs/documents/a").status == 404
    assert len(spaced.get("/collections/docs/documents/b").json()["result"]["chunks"]) == 1
    assert document(spaced, "b", [])["result"]["removed"] == 1
    assert info(spaced)["points_count"] == 0


def test_bad_documents_are_clear_errors(spaced):
    for body in ({}, {"chunks": "x"}, {"chunks": [1]}, {"chunks": [{"text": ""}]}, {"chunks": ["a"], "what": 1},
                 {"chunks": [{"text": "a", "payload": {"chunk": 1}}]}, {"chunks": ["a"], "using": "nosuch"}):
        got = put(spaced, "/collections/docs/documents/d", {"model": "m", **body}, 400)
        assert got["status"]["error"]
    assert info(spaced)["points_count"] == 0


# ---- lifetime ----

def test_expired_points_are_never_served(spaced):
    import time
    make(spaced, "short", metadata={"veckeep": {"ttl": {"field": "until"}}})
    now = time.time()
    points = [{"id": i, "vector": [1.0, i, 0, 0, 0, 0, 0, 0], "payload": {"until": u}}
              for i, u in enumerate([now + 3, now - 10, now + 3600, None])]
    put(spaced, "/collections/short/points?wait=true", {"points": points})

    def ids():
        return sorted(p["id"] for p in post(spaced, "/collections/short/points/scroll", {"limit": 10})["result"]["points"])
    assert ids() == [0, 2, 3]
    assert spaced.get("/collections/short/points/1").status == 404
    procs.wait_for(lambda: ids() == [2, 3], 8, "the point's end")
    found = post(spaced, "/collections/short/points/query", {"query": [1.0] * 8, "limit": 10})["result"]["points"]
    assert sorted(p["id"] for p in found) == [2, 3]
    procs.wait_for(lambda: info(spaced, "short")["points_count"] == 2, 20, "the sweep")
