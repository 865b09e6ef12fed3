"""Searches, scrolls, counts, facets and groups over HTTP, asked by qdrant-client as it is, held against its own in-memory engine on
the same points: a few hundred random questions of every kind, then what a random question does not show.

    VECKEEP_SEED=7 pytest test_qdrant_query.py       replays
"""
import os

import pytest

pytest.importorskip("qdrant_client")

from qdrant_client import QdrantClient, models as m  # noqa: E402
from qdrant_client.http.exceptions import UnexpectedResponse  # noqa: E402

import procs  # noqa: E402
import qdrant_gen as gen  # noqa: E402
from seeds import SEED  # noqa: E402

ROUNDS = int(os.environ.get("VECKEEP_QUERY_ROUNDS", "300"))


class World:
    def __init__(self, serve, seed):
        self.g = gen.Questions(seed)
        self.server = serve({})
        self.ours = QdrantClient(url=self.server.url, check_compatibility=False, timeout=60)
        self.theirs = QdrantClient(":memory:")
        points = self.g.points()
        for client in (self.ours, self.theirs):
            client.create_collection("c", vectors_config={n: m.VectorParams(size=d, distance=k) for n, (d, k) in self.g.conf.items()})
            for field, kind in gen.INDEXES.items():
                client.create_payload_index("c", field, kind, wait=True)
            client.upsert("c", points, wait=True)
            client.delete("c", points_selector=[p.id for p in points[::17]], wait=True)
        self.g.ids = [p.id for i, p in enumerate(points) if i % 17]
        self.at = {str(p.id): p for p in points}

    def both(self, method, *args, **kwargs):
        """Both answer, or both refuse (None)."""
        out = []
        for client in (self.ours, self.theirs):
            try:
                out.append((getattr(client, method)("c", *args, **kwargs), None))
            except (UnexpectedResponse, ValueError) as e:
                out.append((None, e))
        (a, ea), (b, eb) = out
        assert (ea is None) == (eb is None), f"ours: {ea!r}, in memory: {eb!r}"
        return (a, b) if ea is None else None

    def rounds(self, one, n=ROUNDS):
        for i in range(n):
            state = self.g.r.getstate()
            try:
                one()
            except BaseException:
                print(f"round {i}")
                self.g.r.setstate(state)
                raise


@pytest.fixture
def world(serve):
    w = World(serve, SEED)
    yield w
    w.ours.close()


def refused(call, *words):
    with pytest.raises(UnexpectedResponse) as e:
        call()
    text = e.value.content.decode()
    assert all(w in text for w in words), text
    return e.value.status_code


def request_of(args):
    """Arguments of query_points as one request of a batch."""
    more = {"with_vectors": "with_vector", "query_filter": "filter"}
    return m.QueryRequest(**{more.get(k, k): v for k, v in args.items()})


# ---- random questions ----

def test_query_trees_answer_as_in_memory(world):
    found = []

    def one():
        args = world.g.tree()
        result = world.both("query_points", **args)
        if result:
            try:
                gen.check_scored(result[0].points, result[1].points, args.get("offset", 0), isinstance(args.get("query"), m.OrderByQuery))
            except AssertionError:
                print(args)
                raise
            found.append(len(result[0].points))
    world.rounds(one)
    assert sum(found) > 3 * ROUNDS


def test_query_batch_answers_as_one_by_one(world):
    def one():
        shared = world.g.filter()
        args = [world.g.tree(depth=1) for _ in range(world.g.r.randint(1, 12))]
        for a in args:
            if world.g.maybe(0.4):
                a["query_filter"] = shared
        alone = []
        for a in args:
            try:
                alone.append((a, world.ours.query_points("c", **a)))
            except UnexpectedResponse:  # asked by the id of a point that lacks that vector; a batch would fail with it
                continue
        batch = world.ours.query_batch_points("c", [request_of(a) for a, _ in alone])
        for (_, alone), b in zip(alone, batch, strict=True):
            assert [(p.id, p.score, p.order_value, p.payload) for p in alone.points] == [(p.id, p.score, p.order_value, p.payload) for p in b.points]
    world.rounds(one, ROUNDS // 10)


def test_groups_answer_as_in_memory(world):
    g = world.g

    def one():
        args = {"group_by": g.r.choice(["city", "n", "tags", "author", "deep.x"]), "limit": g.r.randint(1, 12), "group_size": g.r.randint(1, 6),
                "query_filter": g.maybe_filter(), "with_payload": True, **g.nearest()}
        result = world.both("query_points_groups", **args)
        if not result:
            return
        a, b = result
        assert [x.id for x in a.groups] == [x.id for x in b.groups]
        for x, y in zip(a.groups, b.groups):
            gen.check_scored(x.hits, y.hits)
    world.rounds(one, ROUNDS // 3)


def test_scroll_pages_join_to_all_points_that_match(world):
    g = world.g

    def one():
        f, size = g.maybe_filter(0.8), g.r.randint(1, 60)
        want = [p.id for p in world.theirs.scroll("c", f, limit=1000)[0]]
        got, offset = [], None
        while True:
            page, offset = world.ours.scroll("c", f, limit=size, offset=offset, with_payload=False)
            got += [p.id for p in page]
            if offset is None:
                break
            assert len(page) == size
        assert got == want
    world.rounds(one, ROUNDS // 10)


def test_scroll_ordered_answers_as_in_memory(world):
    g = world.g

    def one():
        key = g.r.choice(["f", "n", "when"])
        start = {"f": lambda: round(g.r.uniform(-5, 5), 2), "n": lambda: g.r.randint(-30, 30), "when": lambda: "2018-06-01T00:00:00Z"}[key]
        order = m.OrderBy(key=key, direction=g.r.choice(list(m.Direction)), start_from=g.r.choice([None, start()]))
        limit = g.r.randint(1, 300)
        (a, next_a), (b, _) = world.both("scroll", scroll_filter=g.maybe_filter(), limit=limit, order_by=order)
        assert next_a is None and [p.order_value for p in a] == [p.order_value for p in b]
        if len(a) < limit:
            assert {str(p.id) for p in a} == {str(p.id) for p in b}
        gen.check_contents(a, b)
    world.rounds(one, ROUNDS // 3)


def test_counts_and_facets_answer_as_in_memory(world):
    g = world.g

    def one():
        f = g.maybe_filter(0.8)
        a, b = world.both("count", f, exact=True)
        assert a.count == b.count
        a, b = world.both("facet", key=g.r.choice(["city", "n", "flag", "uid", "tags"]), facet_filter=f, limit=g.r.randint(1, 70), exact=g.maybe(0.5))
        assert [(h.value, h.count) for h in a.hits] == [(h.value, h.count) for h in b.hits]
    world.rounds(one, ROUNDS // 3)


def test_samples_are_of_the_points_that_match(world):
    g, orders = world.g, set()
    for _ in range(20):
        f = g.maybe_filter(0.7)
        matches = {str(p.id) for p in world.theirs.scroll("c", f, limit=1000)[0]}
        got = [str(p.id) for p in world.ours.query_points("c", query=m.SampleQuery(sample=m.Sample.RANDOM), query_filter=f, limit=40).points]
        assert len(got) == len(set(got)) == min(40, len(matches)) and set(got) <= matches
        orders.add(tuple(world.ours.query_points("c", query=m.SampleQuery(sample=m.Sample.RANDOM), limit=10).points[0:1][0].model_dump_json()))
    assert len(orders) > 1


# ---- by hand ----

def test_points_come_by_id_as_they_were_asked_for(world):
    g = world.g
    ids = g.r.sample(g.ids, 20) + [gen.UNKNOWN]
    got = world.ours.retrieve("c", ids, with_vectors=True)
    assert [p.id for p in got] == ids[:-1]
    gen.check_contents([m.ScoredPoint(id=p.id, version=0, score=0, payload=p.payload, vector=p.vector) for p in got],
                       [m.ScoredPoint(id=p.id, version=0, score=0, payload=p.payload, vector=p.vector) for p in world.theirs.retrieve("c", ids, with_vectors=True)])
    one = world.server.get(f"/collections/c/points/{ids[0]}").json()["result"]
    assert one["id"] == ids[0] and one["payload"] == got[0].payload and set(one["vector"]) == set(got[0].vector)
    missing = world.server.get(f"/collections/c/points/{gen.UNKNOWN}")
    assert missing.status == 404 and f"Not found: Point with id {gen.UNKNOWN} does not exists!" in missing.json()["status"]["error"]


def test_older_search_answers_as_query_does(world):
    post, c = world.server.post, "/collections/c/points"
    vector = world.g.vector("text")
    body = {"filter": {"must_not": [{"key": "city", "match": {"value": "Rome"}}]}, "limit": 7, "offset": 2, "with_payload": True, "score_threshold": -0.5}
    want = post(c + "/query", {"query": vector, "using": "text", **body}).json()["result"]["points"]
    search = {"vector": {"name": "text", "vector": vector}, **body}
    assert len(want) == 7 and post(c + "/search", search).json()["result"] == want
    assert post(c + "/search/batch", {"searches": [search, search]}).json()["result"] == [want, want]
    top = {k: v for k, v in search.items() if k != "limit"}
    assert post(c + "/search", {**top, "top": 7}).json()["result"] == want
    groups = {"group_by": "city", "limit": 3, "group_size": 2}
    a = post(c + "/search/groups", {"vector": search["vector"], **groups}).json()["result"]
    assert a == post(c + "/query/groups", {"query": vector, "using": "text", **groups}).json()["result"] and len(a["groups"]) == 3


def test_query_by_id_looks_up_other_collections(world):
    g, ours = world.g, world.ours
    ours.create_collection("other", vectors_config={"t": m.VectorParams(size=7, distance=m.Distance.COSINE), "small": m.VectorParams(size=2, distance=m.Distance.DOT)})
    vector, there = g.vector("text"), g.ids[0]
    ours.upsert("other", [m.PointStruct(id=there, vector={"t": vector, "small": [1, 2]})], wait=True)
    look = m.LookupLocation(collection="other", vector="t")
    by_id = ours.query_points("c", query=there, using="text", lookup_from=look, limit=300).points
    direct = ours.query_points("c", query=vector, using="text", limit=300).points
    assert [p.id for p in by_id] == [p.id for p in direct]
    assert there in [p.id for p in by_id] or "text" not in world.at[str(there)].vector
    assert refused(lambda: ours.query_points("c", query=gen.UNKNOWN, using="text", lookup_from=look), f"Not found: No point with id {gen.UNKNOWN} found") == 404
    assert refused(lambda: ours.query_points("c", query=there, using="text", lookup_from=m.LookupLocation(collection="other", vector="small")),
                   "Vector dimension error: expected dim: 7, got 2") == 400
    assert refused(lambda: ours.query_points("c", query=there, using="text", lookup_from=m.LookupLocation(collection="nope")), "Collection `nope` doesn't exist!") == 404
    # An id anywhere in a tree is left out of all of it.
    mine = next(i for i in g.ids if "text" in world.at[str(i)].vector)
    tree = ours.query_points("c", prefetch=[m.Prefetch(query=mine, using="text", limit=300), m.Prefetch(query=vector, using="text", limit=300)],
                             query=m.FusionQuery(fusion=m.Fusion.RRF), limit=300).points
    assert len(tree) > 100 and mine not in [p.id for p in tree]


def test_groups_look_up_their_ids_elsewhere(world):
    ours = world.ours
    ours.create_collection("authors", vectors_config=m.VectorParams(size=2, distance=m.Distance.DOT))
    ours.upsert("authors", [m.PointStruct(id=i, vector=[i, 1], payload={"name": f"author {i}", "age": i}) for i in range(0, 9, 2)], wait=True)
    for look, payload, vectors in (("authors", True, False), (m.WithLookup(collection="authors", with_payload=["name"], with_vectors=True), ["name"], True)):
        groups = ours.query_points_groups("c", group_by="author", query=world.g.vector("sum"), using="sum", limit=9, group_size=2, with_lookup=look).groups
        assert len(groups) == 9
        for g in groups:
            if g.id % 2:
                assert g.lookup is None
                continue
            assert g.lookup.id == g.id and g.lookup.payload == {"name": f"author {g.id}", **({"age": g.id} if payload is True else {})}
            assert g.lookup.vector == ([g.id, 1] if vectors else None)
    assert refused(lambda: ours.query_points_groups("c", group_by="author", query=[0.0, 1, 2], using="sum", with_lookup="nope"), "Collection nope not found") == 404


@pytest.mark.parametrize("path, body, status, words", [
    ("points/query", {"prefetch": {"query": [1, 2, 3], "using": "sum"}}, 400, "Bad request: A query is needed to merge the prefetches."),
    ("points/query", {"prefetch": {"query": {"recommend": {"positive": [1]}}}}, 400, "Bad request: A query is needed to merge the prefetches."),
    ("points/query", {"query": {"recommend": {"positive": [1]}}, "limit": 0}, 422,
     "Validation error in JSON body: [internal.limit: value 0 invalid, must be 1 or larger]"),
    ("points/query", {"query": [1, 2, 3], "using": "sum", "lookup_from": {"collection": "nope"}}, 404,
     "Not found: Collection `nope` doesn't exist!"),
    ("points/query", {"query": {"fusion": "rrf"}, "prefetch": {"query": [1, 2, 3], "using": "sum", "lookup_from": {"collection": "nope"}}},
     404, "Not found: Collection `nope` doesn't exist!"),
    ("points/query", {"filter": {"must": {"slice": {"total": 4, "index": 4}}}}, 422,
     "Validation error in JSON body: [filter.must.slice: `index` must be less than `total`]"),
    ("points/query", {"filter": {"must": [{"key": "n", "match": {"value": 1.5}}]}}, 400,
     "Format error in JSON body: filter.must[0].match.value: invalid value"),
    ("points/query", {"score_threshold": 1}, 400, "Bad request: A query is needed to use the score_threshold."),
    ("points/query", {"query": {"order_by": "n"}, "score_threshold": 1}, 400, "Bad request: Can't use score_threshold with an order_by query."),
    ("points/query", {"query": {"fusion": "rrf"}}, 400, "cannot apply Fusion without prefetches"),
    ("points/query", {"query": {"fusion": "rrf"}, "using": "sum", "prefetch": [{}]}, 400, "Fusion queries cannot be combined with the 'using' field."),
    ("points/query", {"query": {"rrf": {"weights": [1]}}, "prefetch": [{}, {}]}, 400, "got 1, expected 2"),
    ("points/query", {"query": {"rrf": {"k": 0}}, "prefetch": [{}]}, 422, "must be 1 or larger"),
    ("points/query", {"query": {"fusion": "sum"}, "prefetch": [{}]}, 400, "unknown variant `sum`"),
    ("points/query", {"query": {"order_by": "nothing"}}, 400, "No range index for `order_by` key: `nothing`."),
    ("points/query", {"query": {"order_by": "city"}}, 400, "No range index for `order_by` key: `city`."),
    ("points/query", {"query": {"sample": "all"}}, 400, "unknown variant `all`"),
    ("points/query", {"query": [1, 2], "using": "sum"}, 400, "Vector dimension error: expected dim: 3, got 2"),
    ("points/query", {"query": [1, 2, 3]}, 400, "Not existing vector name error"),
    ("points/query", {"query": [1, 2, 3], "using": "nothing"}, 400, "Not existing vector name error: nothing"),
    ("points/query", {"query": gen.UNKNOWN, "using": "sum"}, 404, f"Not found: No point with id {gen.UNKNOWN} found"),
    ("points/query", {"query": [1, 2, 3], "using": "sum", "limit": 0}, 422, "[internal.limit: value 0 invalid, must be 1 or larger]"),
    ("points/query", {"query": [1, 2, 3], "using": "sum", "limit": "x"}, 400, "Format error in JSON body"),
    ("points/query", {"query": {"recommend": {"positive": [1]}}, "using": "sum"}, 400, "`recommend` queries are not supported yet"),
    ("points/query", {"query": {"nearest": [1, 2, 3], "mmr": {}}, "using": "sum"}, 400, "`mmr` is not supported yet"),
    ("points/query", {"query": {}, "using": "sum"}, 400, "Format error in JSON body"),
    ("points/query/batch", {"searches": 1}, 400, "searches"),
    ("points/query/groups", {"query": [1, 2, 3], "using": "sum"}, 400, "group_by"),
    ("points/query/groups", {"query": [1, 2, 3], "using": "sum", "group_by": "city", "group_size": 0}, 422, "must be 1 or larger"),
    ("points/search", {"vector": [1, 2, 3]}, 400, "Not existing vector name error"),
    ("points/search", {"vector": {"name": "sum", "vector": [1, 2, 3]}}, 400, "missing field `limit`"),
    ("points/search", {"limit": 3}, 400, "missing field `vector`"),
    ("points/scroll", {"order_by": "n", "offset": 3}, 400, "Cannot use an `offset` when using `order_by`."),
    ("points/scroll", {"limit": 0}, 422, "must be 1 or larger"),
    ("points/scroll", {"offset": -1}, 400, "-1"),
    ("points/count", {"exact": 1}, 400, "exact"),
    ("points/count", {"filter": {"must": [{"nothing": 1}]}}, 400, "unknown field `nothing`"),
    ("points", {}, 400, "missing field `ids`"),
    ("facet", {"key": "nothing"}, 400, "No appropriate index for faceting: `nothing`."),
    ("facet", {"key": "f"}, 400, "No appropriate index for faceting: `f`."),
    ("facet", {}, 400, "missing field `key`"),
    ("points/recommend", {"positive": [1], "limit": 3}, 400, "not supported yet"),
    ("points/discover", {"target": 1, "limit": 3}, 400, "not supported yet"),
    ("points/search/matrix/pairs", {"sample": 3}, 400, "not supported yet"),
])
def test_bad_questions_are_refused_in_qdrants_words(questions, path, body, status, words):
    got = questions.post("/collections/c/" + path, body)
    assert (got.status, words in got.json()["status"]["error"]) == (status, True), got


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    server = procs.Server(tmp_path_factory.mktemp("questions"), {})
    server._client.request("PUT", "/collections/c", {"vectors": {"sum": {"size": 3, "distance": "Dot"}}}, {})
    for field, kind in (("city", "keyword"), ("n", "integer"), ("f", "float")):
        server._client.request("PUT", "/collections/c/index?wait=true", {"field_name": field, "field_schema": kind}, {})
    server._client.request("PUT", "/collections/c/points?wait=true", {"points": [{"id": 1, "vector": {"sum": [1, 2, 3]}}]}, {})
    yield server
    assert server.stop() == 0
