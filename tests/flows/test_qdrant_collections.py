"""Collections over Qdrant's routes: the unmodified client for what it can say, raw HTTP for the shapes of errors. Goal: what a client
sets comes back as it set it, what it must not set is refused in Qdrant's words, and nothing is lost over a restart."""
import hashlib

import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

import procs
from qdrant_http import ask, error


@pytest.fixture
def client(plain):
    c = QdrantClient(url=plain.url, timeout=30)
    yield c
    c.close()


VECTOR = {"size": 4, "distance": "Cosine"}


# ---- create, show, drop ----

def test_collection_created_by_client_is_shown_with_qdrants_defaults(client):
    assert client.create_collection("a", vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE))
    info = client.get_collection("a")
    assert info.status == models.CollectionStatus.GREEN and info.optimizer_status == models.OptimizersStatusOneOf.OK
    assert (info.points_count, info.segments_count, info.payload_schema) == (0, 1, {})
    assert info.config.params.vectors == models.VectorParams(size=4, distance=models.Distance.COSINE)
    assert (info.config.params.shard_number, info.config.params.replication_factor) == (1, 1)
    assert info.config.params.on_disk_payload is True
    assert (info.config.hnsw_config.m, info.config.hnsw_config.ef_construct) == (16, 100)
    assert info.config.optimizer_config.deleted_threshold == 0.2
    assert info.config.wal_config.wal_capacity_mb == 32
    assert info.config.quantization_config is None
    assert [c.name for c in client.get_collections().collections] == ["a"]
    assert client.collection_exists("a") and not client.collection_exists("b")
    assert client.delete_collection("a") and not client.collection_exists("a")
    assert client.delete_collection("a") is False


def test_everything_a_client_sets_comes_back_after_a_restart(plain, client):
    client.create_collection(
        "full",
        vectors_config={
            "image": models.VectorParams(size=512, distance=models.Distance.DOT, on_disk=True,
                                         hnsw_config=models.HnswConfigDiff(m=20)),
            "title": models.VectorParams(size=1, distance=models.Distance.MANHATTAN, datatype=models.Datatype.UINT8),
            "long": models.VectorParams(size=65536, distance=models.Distance.EUCLID, datatype=models.Datatype.FLOAT16,
                                        quantization_config=models.BinaryQuantization(
                                            binary=models.BinaryQuantizationConfig(always_ram=True))),
        },
        hnsw_config=models.HnswConfigDiff(ef_construct=200, full_scan_threshold=20000),
        optimizers_config=models.OptimizersConfigDiff(default_segment_number=2, indexing_threshold=0),
        wal_config=models.WalConfigDiff(wal_capacity_mb=8),
        quantization_config=models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99)),
        strict_mode_config=models.StrictModeConfig(enabled=False, max_query_limit=100),
        shard_number=2, replication_factor=3, write_consistency_factor=2, on_disk_payload=False,
        metadata={"team": "search", "list": [1, 2.5, None, {"x": True}]},
    )
    before = client.get_collection("full")
    plain.restart()
    after = QdrantClient(url=plain.url).get_collection("full")
    assert before == after
    p = after.config.params
    assert p.vectors["image"].hnsw_config.m == 20 and p.vectors["image"].on_disk
    assert p.vectors["title"].datatype == models.Datatype.UINT8 and p.vectors["title"].size == 1
    assert p.vectors["long"].quantization_config.binary.always_ram and p.vectors["long"].size == 65536
    assert (p.shard_number, p.replication_factor, p.write_consistency_factor, p.on_disk_payload) == (2, 3, 2, False)
    c = after.config
    assert (c.hnsw_config.m, c.hnsw_config.ef_construct, c.hnsw_config.full_scan_threshold) == (16, 200, 20000)
    assert (c.optimizer_config.default_segment_number, c.optimizer_config.indexing_threshold) == (2, 0)
    assert c.wal_config.wal_capacity_mb == 8
    assert c.quantization_config.scalar.quantile == 0.99
    assert c.strict_mode_config.max_query_limit == 100
    assert c.metadata == {"team": "search", "list": [1, 2.5, None, {"x": True}]}


@pytest.mark.parametrize("body, status, text", [
    (None, 400, "Format error in JSON body: EOF while parsing"),
    ("{", 400, "Format error in JSON body: invalid JSON at byte 1"),
    ("[]", 400, "Format error in JSON body: expected an object"),
    ({"vectors": 4}, 400, "Format error in JSON body: vectors"),
    ({"vectors": {"size": 4}}, 400, "Format error in JSON body: vectors: missing field `distance`"),
    ({"vectors": {"size": "4", "distance": "Dot"}}, 400, "Format error in JSON body: vectors.size: invalid type"),
    ({"vectors": {"size": 4, "distance": "Far"}}, 400, "unknown variant `Far`"),
    ({"vectors": {"size": 0, "distance": "Dot"}}, 422, "Validation error in JSON body: [vectors.size: value 0 invalid"),
    ({"vectors": {"size": 65537, "distance": "Dot"}}, 422, "[vectors.size: value 65537 invalid"),
    ({"vectors": {"a": {"size": 0, "distance": "Dot"}}}, 422, "[vectors.a.size: value 0 invalid"),
    ({"vectors": VECTOR, "hnsw_config": {"ef_construct": 0}}, 422, "[hnsw_config.ef_construct: value 0 invalid, must be 4 or larger]"),
    ({"vectors": VECTOR, "shard_number": 0}, 422, "[shard_number: value 0 invalid, must be 1 or larger]"),
    ({"vectors": VECTOR, "replication_factor": -1}, 400, "Format error in JSON body: replication_factor"),
    ({"vectors": VECTOR, "optimizers_config": {"deleted_threshold": 1.5}}, 422, "optimizers_config.deleted_threshold"),
    ({"vectors": VECTOR, "quantization_config": {"scalar": {"type": "int9"}}}, 400, "unknown variant `int9`"),
    ({"vectors": VECTOR, "quantization_config": {"scalar": {"type": "int8", "quantile": 0.1}}}, 422, "scalar.quantile"),
    ({"vectors": VECTOR, "quantization_config": {"product": {}}}, 400, "missing field `compression`"),
    ({"vectors": VECTOR, "quantization_config": {"exotic": {}}}, 400, "quantization_config: expected one of"),
    ({"vectors": {**VECTOR, "multivector_config": {"comparator": "max_sim"}}}, 400, "no multivectors"),
    ({"vectors": {**VECTOR, "datatype": "turbo4"}}, 400, "Wrong input: vectors.datatype"),
    ({"vectors": VECTOR, "sparse_vectors": {"s": 1}}, 400, "Format error in JSON body: sparse_vectors.s: invalid type"),
    ({"vectors": VECTOR, "sparse_vectors": {"": {}}}, 400, "Wrong input: Sparse vector name cannot be empty"),
    ({"vectors": VECTOR, "strict_mode_config": {"enabled": True}}, 400, "Wrong input: strict_mode_config.enabled: strict mode is not supported yet"),
    ({"vectors": {"s": VECTOR}, "sparse_vectors": {"s": {}}}, 400, "Wrong input: Dense and sparse vector names must be unique"),
    ({"sparse_vectors": {"s": {"modifier": "tfidf"}}}, 400, "unknown variant `tfidf`"),
    ({"sparse_vectors": {"s": {"index": {"datatype": "turbo4"}}}}, 400, "sparse vectors do not support the datatype turbo4"),
    ({"vectors": VECTOR, "sparse_vectors": {str(i): {} for i in range(64)}}, 400, "at most 64 named vectors"),
    ({"vectors": VECTOR, "sharding_method": "custom"}, 400, "sharding_method"),
    ({"vectors": VECTOR, "metadata": [1]}, 400, "metadata: invalid type"),
    ({"vectors": VECTOR, "metadata": {"veckeep": {"unknown": 1}}}, 400, "unknown field `unknown`"),
    ({"vectors": VECTOR, "metadata": {"veckeep": {"provenance": "maybe"}}}, 422, "metadata.veckeep.provenance"),
    ({"vectors": VECTOR, "metadata": {"veckeep": {"ttl": {"field": "at", "after": "soon"}}}}, 422, "metadata.veckeep.ttl.after"),
    ({"vectors": VECTOR, "metadata": {"veckeep": {"text_from": ""}}}, 422, "metadata.veckeep.text_from"),
    ({"vectors": VECTOR, "metadata": {"veckeep": {"spaces": {"": "nobody@1"}}}}, 400, "no such space is configured here"),
    ({"vectors": VECTOR, "metadata": {"veckeep": {"spaces": {"other": "nobody@1"}}}}, 400, "Not existing vector name error: other"),
])
def test_wrong_configs_are_refused_in_qdrants_words(plain, body, status, text):
    assert text in error(plain, "PUT", "/collections/c", body, status)
    assert ask(plain, "GET", "/collections")["result"]["collections"] == []


def test_missing_existing_and_misnamed_collections(plain):
    assert error(plain, "GET", "/collections/x", status=404) == "Not found: Collection `x` doesn't exist!"
    ask(plain, "PUT", "/collections/x", {"vectors": VECTOR})
    assert error(plain, "PUT", "/collections/x", {"vectors": VECTOR}, 409) == "Wrong input: Collection `x` already exists!"
    for name in ("a" * 256, "a%2Fb", "a%3Cb", "a%01"):
        assert error(plain, "PUT", f"/collections/{name}", {"vectors": VECTOR}, 422).startswith(
            "Validation error in path parameters: [collection_name: "), name
    assert "timeout: value 0 invalid" in error(plain, "PUT", "/collections/y?timeout=0", {"vectors": VECTOR}, 422)
    assert "wait" in error(plain, "PUT", "/collections/x/points?wait=1", {"points": []})
    assert "ordering" in error(plain, "PUT", "/collections/x/points?ordering=none", {"points": []})
    assert ask(plain, "PUT", "/collections/%C3%A9t%C3%A9%20%E2%98%80", {"vectors": VECTOR})["result"] is True
    assert {"name": "été ☀"} in ask(plain, "GET", "/collections")["result"]["collections"]


# ---- changes ----

def test_update_merges_what_it_names_and_keeps_the_rest(client):
    client.create_collection("a", vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT),
                             metadata={"one": 1, "two": 2})
    client.update_collection(
        "a", vectors_config={"": models.VectorParamsDiff(
            hnsw_config=models.HnswConfigDiff(m=32),
            quantization_config=models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)))},
        hnsw_config=models.HnswConfigDiff(ef_construct=123), optimizers_config=models.OptimizersConfigDiff(indexing_threshold=77),
        collection_params=models.CollectionParamsDiff(on_disk_payload=False), metadata={"two": None, "three": 3})
    client.update_collection("a", vectors_config={"": models.VectorParamsDiff(
        hnsw_config=models.HnswConfigDiff(ef_construct=64), on_disk=True, quantization_config=models.Disabled.DISABLED)})
    info = client.get_collection("a")
    vector = info.config.params.vectors
    assert (vector.hnsw_config.m, vector.hnsw_config.ef_construct, vector.on_disk) == (32, 64, True)
    assert vector.quantization_config is None
    assert (info.config.hnsw_config.m, info.config.hnsw_config.ef_construct) == (16, 123)
    assert info.config.optimizer_config.indexing_threshold == 77
    assert info.config.params.on_disk_payload is False
    assert info.config.metadata == {"one": 1, "three": 3}
    with pytest.raises(UnexpectedResponse, match="Not existing vector name error: other"):
        client.update_collection("a", vectors_config={"other": models.VectorParamsDiff(on_disk=True)})


def test_named_vector_added_and_dropped_on_a_live_collection(plain, client):
    client.create_collection("a", vectors_config={"x": models.VectorParams(size=2, distance=models.Distance.DOT)})
    client.upsert("a", [models.PointStruct(id=i, vector={"x": [i, 1]}) for i in range(20)], wait=True)
    dense = {"dense": {"size": 3, "distance": "Euclid"}}
    assert ask(plain, "PUT", "/collections/a/vectors/y?wait=true", dense)["result"]["status"] == "completed"
    assert ask(plain, "PUT", "/collections/a/vectors/y?wait=true", dense)["result"]  # again is fine
    assert "different configuration" in error(plain, "PUT", "/collections/a/vectors/y", {"dense": {"size": 4, "distance": "Euclid"}})
    client.update_vectors("a", [models.PointVectors(id=3, vector={"y": [1, 2, 3]})], wait=True)
    assert client.retrieve("a", [3], with_vectors=True)[0].vector == {"x": [3, 1], "y": [1, 2, 3]}
    assert [p.id for p in client.query_points("a", query=[1, 2, 3], using="y").points] == [3]
    ask(plain, "DELETE", "/collections/a/vectors/y?wait=true")
    assert client.retrieve("a", [3], with_vectors=True)[0].vector == {"x": [3, 1]}
    with pytest.raises(UnexpectedResponse, match="Not existing vector name error: y"):
        client.query_points("a", query=[1, 2, 3], using="y")
    # The name may come back as something else, with none of the old rows.
    ask(plain, "PUT", "/collections/a/vectors/y?wait=true", {"dense": {"size": 2, "distance": "Dot"}})
    assert client.retrieve("a", [3], with_vectors=True)[0].vector == {"x": [3, 1]}
    assert client.query_points("a", query=[1, 2], using="y").points == []
    assert error(plain, "PUT", "/collections/a/vectors/z", {"dense": {"size": 0, "distance": "Dot"}}, 422)


@pytest.mark.parametrize("schema, type, value", [
    (models.PayloadSchemaType.KEYWORD, "keyword", "v"),
    (models.KeywordIndexParams(type="keyword", is_tenant=True), "keyword", "v"),
    (models.IntegerIndexParams(type="integer", lookup=True, range=False), "integer", 7),
    (models.PayloadSchemaType.FLOAT, "float", 7.5),
    (models.PayloadSchemaType.BOOL, "bool", True),
    (models.PayloadSchemaType.DATETIME, "datetime", "2024-01-01T00:00:00Z"),
    (models.PayloadSchemaType.UUID, "uuid", "b524a3c4-c568-4383-8019-c9ca08243d6a"),
    (models.PayloadSchemaType.GEO, "geo", {"lon": 1.0, "lat": 2.0}),
    (models.TextIndexParams(type="text", tokenizer=models.TokenizerType.WORD, lowercase=True), "text", "some words"),
])
def test_payload_index_of_each_type_is_shown_and_dropped(client, schema, type, value):
    client.create_collection("a", vectors_config=models.VectorParams(size=1, distance=models.Distance.DOT))
    client.upsert("a", [models.PointStruct(id=1, vector=[1], payload={"f": {"g": value}}), models.PointStruct(id=2, vector=[1])],
                  wait=True)
    assert client.create_payload_index("a", "f.g", schema, wait=True).status == models.UpdateStatus.COMPLETED
    info = client.get_collection("a").payload_schema["f.g"]
    assert info.data_type == type
    if type != "text":  # a text index is matched by scanning
        assert info.points == 1
    if not isinstance(schema, models.PayloadSchemaType):
        assert info.params == schema
    client.create_payload_index("a", "f.g", schema, wait=True)
    client.delete_payload_index("a", "f.g", wait=True)
    client.delete_payload_index("a", "f.g", wait=True)
    assert client.get_collection("a").payload_schema == {}


def test_payload_index_wrong_schemas_are_refused(plain):
    ask(plain, "PUT", "/collections/a", {"vectors": VECTOR})
    path = "/collections/a/index?wait=true"
    assert "please specify `field_schema`" in error(plain, "PUT", path, {"field_name": "f"})
    assert "missing field `field_name`" in error(plain, "PUT", path, {"field_schema": "keyword"})
    assert "field_schema: expected one of" in error(plain, "PUT", path, {"field_name": "f", "field_schema": "decimal"})
    both = {"type": "integer", "lookup": False, "range": False}
    assert "can't be both disabled" in error(plain, "PUT", path, {"field_name": "f", "field_schema": both}, 422)
    assert "field_name" in error(plain, "PUT", path, {"field_name": "", "field_schema": "keyword"}, 422)
    words = {"type": "text", "stopwords": "english"}
    assert "field_schema.stopwords: not supported yet" in error(plain, "PUT", path, {"field_name": "f", "field_schema": words})
    assert "is_tenant" in error(plain, "PUT", path, {"field_name": "f", "field_schema": {"type": "keyword", "is_tenant": 1}})
    assert ask(plain, "GET", "/collections/a")["result"]["payload_schema"] == {}


# ---- ours ----

def test_binding_in_metadata_is_checked_and_shown_as_it_holds(server):
    veckeep = {"spaces": {"v": "test/m@1"}, "text_from": "body", "provenance": "require", "ttl": {"field": "at", "after": "30d"}}
    ask(server, "PUT", "/collections/a", {"vectors": {"v": {"size": 8, "distance": "Cosine"}, "w": {"size": 3, "distance": "Dot"}},
                                          "metadata": {"veckeep": veckeep, "mine": 1}})
    shown = ask(server, "GET", "/collections/a")["result"]["config"]["metadata"]
    assert shown == {"veckeep": {**veckeep, "ttl": {"field": "at", "after": 2592000}}, "mine": 1}
    # A vector of 3 dimensions cannot hold an 8-dimensional space: both are named.
    text = error(server, "PATCH", "/collections/a", {"metadata": {"veckeep": {"spaces": {"w": "test/m@1"}}}})
    assert "3" in text and "test/m@1" in text and "8" in text
    ask(server, "PATCH", "/collections/a", {"metadata": {"veckeep": {"provenance": "off", "ttl": None}}})
    shown = ask(server, "GET", "/collections/a")["result"]["config"]["metadata"]["veckeep"]
    assert shown == {"spaces": {"v": "test/m@1"}, "text_from": "body", "provenance": "off", "ttl": None}
    ask(server, "PUT", "/collections/b", {"vectors": VECTOR, "metadata": {"x": 1}})
    assert ask(server, "GET", "/collections/b")["result"]["config"]["metadata"] == {"x": 1}


def test_bound_vector_is_not_bound_to_another_space(serve, fake):
    server = serve(procs.config(fake, spaces={"test/m@1": procs.space(), "test/n@1": procs.space()}))
    ask(server, "PUT", "/collections/a", {"vectors": {"size": 8, "distance": "Cosine"},
                                          "metadata": {"veckeep": {"spaces": {"default": "test/m@1"}}}})
    again = {"metadata": {"veckeep": {"spaces": {"": "test/m@1"}}}}
    ask(server, "PATCH", "/collections/a", again)
    text = error(server, "PATCH", "/collections/a", {"metadata": {"veckeep": {"spaces": {"": "test/n@1"}}}}, 409)
    assert "test/m@1" in text and "test/n@1" in text


# ---- aliases ----

def test_aliases_lead_to_collections_and_switch_in_one_step(plain, client):
    one = models.VectorParams(size=1, distance=models.Distance.DOT)
    for i, name in enumerate(("a", "b")):
        client.create_collection(name, vectors_config=one)
        client.upsert(name, [models.PointStruct(id=i, vector=[1])], wait=True)
    create = lambda collection, alias: models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=collection, alias_name=alias))
    drop = lambda alias: models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
    client.update_collection_aliases([create("a", "live"), create("a", "other")])
    assert [p.id for p in client.scroll("live")[0]] == [0]
    client.update_collection_aliases([drop("live"), create("b", "live"), models.RenameAliasOperation(
        rename_alias=models.RenameAlias(old_alias_name="other", new_alias_name="renamed"))])
    assert [p.id for p in client.scroll("live")[0]] == [1]
    assert {(a.alias_name, a.collection_name) for a in client.get_aliases().aliases} == {("live", "b"), ("renamed", "a")}
    assert [a.alias_name for a in client.get_collection_aliases("a").aliases] == ["renamed"]
    assert client.collection_exists("live")

    # All or nothing: the second action cannot be, so the first has not been.
    with pytest.raises(UnexpectedResponse, match="`nowhere`"):
        client.update_collection_aliases([drop("live"), create("nowhere", "x")])
    assert client.collection_exists("live")
    with pytest.raises(UnexpectedResponse) as got:
        client.update_collection_aliases([create("a", "b")])
    assert got.value.status_code == 409
    text = error(plain, "PUT", "/collections/live", {"vectors": VECTOR})
    assert text == "Wrong input: Can't create collection with name live. Alias with the same name already exists"
    assert client.delete_collection("live") is False  # an alias is no collection
    client.delete_collection("b")
    assert [a.alias_name for a in client.get_aliases().aliases] == ["renamed"]
    for body in ({}, {"actions": [{"teleport": {}}]}, {"actions": [{"create_alias": {"alias_name": "z"}}]}):
        assert error(plain, "POST", "/collections/aliases", body).startswith("Format error in JSON body")


# ---- keys ----

def test_keys_reach_only_their_collections_and_scopes(plain):
    admin = ask(plain, "POST", "/v1/keys", {"name": "admin", "scopes": ["admin"]})["key"]
    plain.key = admin
    reader = ask(plain, "POST", "/v1/keys", {"name": "r", "scopes": ["read"], "collections": "docs-*,shared"})["key"]
    writer = ask(plain, "POST", "/v1/keys", {"name": "w", "scopes": ["read", "write"], "collections": "docs-*"})["key"]
    for name in ("docs-a", "shared", "secret"):
        ask(plain, "PUT", f"/collections/{name}", {"vectors": VECTOR})
    names = lambda: {c["name"] for c in ask(plain, "GET", "/collections")["result"]["collections"]}
    point = {"points": [{"id": 1, "vector": [1, 2, 3, 4]}]}

    plain.key = None
    assert plain.get("/collections").status == 401
    for header in ({"api-key": reader}, {"Authorization": f"Bearer {reader}"}):
        assert plain.get("/collections/docs-a", header).status == 200
    plain.key = reader
    assert names() == {"docs-a", "shared"}
    assert error(plain, "GET", "/collections/secret", status=403) == "Forbidden: Access to collection secret is required"
    assert error(plain, "POST", "/collections/secret/points/scroll", {}, 403).startswith("Forbidden")
    error(plain, "PUT", "/collections/docs-a/points", point, 403)
    error(plain, "DELETE", "/collections/docs-a", status=403)
    plain.key = writer
    ask(plain, "PUT", "/collections/docs-a/points?wait=true", point)
    error(plain, "PUT", "/collections/shared/points", point, 403)
    error(plain, "PUT", "/collections/mine", {"vectors": VECTOR}, 403)
    ask(plain, "PUT", "/collections/docs-new", {"vectors": VECTOR})
    # An alias is no way around: both names are asked about.
    alias = {"create_alias": {"collection_name": "secret", "alias_name": "docs-secret"}}
    error(plain, "POST", "/collections/aliases", {"actions": [alias]}, 403)
    QdrantClient(url=plain.url, api_key=writer).get_collection("docs-a")


# ---- snapshots ----

def test_snapshot_goes_out_and_comes_back(plain, client):
    client.create_collection("a", vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT))
    client.upsert("a", [models.PointStruct(id=i, vector=[i, 1], payload={"i": i}) for i in range(300)], wait=True)
    client.create_payload_index("a", "i", models.PayloadSchemaType.INTEGER, wait=True)
    assert client.list_snapshots("a") == []
    snap = client.create_snapshot("a", wait=True)
    assert client.list_snapshots("a") == [snap] and snap.size > 0
    got = plain.get(f"/collections/a/snapshots/{snap.name}")
    assert got.status == 200 and got.headers["content-type"] == "application/octet-stream"
    assert hashlib.sha256(got.body).hexdigest() == snap.checksum and len(got.body) == snap.size

    client.delete("a", models.FilterSelector(filter=models.Filter()), wait=True)
    assert client.count("a").count == 0
    path = plain.data / "snapshots" / "a" / snap.name
    assert client.recover_snapshot("a", path.resolve().as_uri(), checksum=snap.checksum, wait=True)
    assert client.count("a").count == 300
    assert client.get_collection("a").payload_schema["i"].points == 300
    assert client.retrieve("a", [7], with_vectors=True)[0] == models.Record(id=7, payload={"i": 7}, vector=[7, 1])

    # Uploaded, as a collection that is not there yet.
    upload(plain, "b", got.body)
    assert client.count("b").count == 300
    assert client.scroll("b", limit=300, with_vectors=True) == client.scroll("a", limit=300, with_vectors=True)
    assert client.delete_snapshot("a", snap.name, wait=True)
    assert client.list_snapshots("a") == []
    left = [p for p in (plain.data / "snapshots").rglob("*") if p.is_file()]
    assert not [p for p in left if "upload" in p.name], left
    plain.restart()
    again = QdrantClient(url=plain.url)
    assert again.count("a").count == again.count("b").count == 300


def upload(server, collection, data, status=200, query="", field="snapshot", type="multipart/form-data; boundary=xyz"):
    head = f'--xyz\r\nContent-Disposition: form-data; name="{field}"; filename="s.snapshot"\r\n\r\n'.encode()
    body = head + data + b"\r\n--xyz--\r\n"
    got = server._client.request("POST", f"/collections/{collection}/snapshots/upload{query}", body,
                                 server.headers({"Content-Type": type}))
    assert got.status == status, got
    return got.json()


def test_snapshots_that_are_none_are_refused_and_nothing_changes(plain, client):
    client.create_collection("a", vectors_config=models.VectorParams(size=1, distance=models.Distance.DOT))
    client.upsert("a", [models.PointStruct(id=1, vector=[1])], wait=True)
    snap = client.create_snapshot("a")
    data = plain.get(f"/collections/a/snapshots/{snap.name}").body
    assert "checksum" in upload(plain, "a", data, 400, "?checksum=" + "3" * 64)["status"]["error"].lower()
    assert "sha256" in upload(plain, "a", data, 422, "?checksum=3")["status"]["error"]
    broken = bytearray(data)
    broken[len(broken) // 2] ^= 1
    for bad in (b"", b"no tar", data[:-2000], bytes(broken)):
        got = plain._client.request("POST", "/collections/a/snapshots/upload", form(bad), {"Content-Type": MULTI})
        assert 400 <= got.status < 500, (len(bad), got)
    assert "no field `snapshot`" in upload(plain, "a", data, 400, field="file")["status"]["error"]
    assert "multipart/form-data" in upload(plain, "a", data, 400, type="application/json")["status"]["error"]
    assert client.count("a").count == 1
    client.upsert("a", [models.PointStruct(id=2, vector=[1])], wait=True)
    assert client.count("a").count == 2


MULTI = "multipart/form-data; boundary=xyz"


def form(data):
    return b'--xyz\r\nContent-Disposition: form-data; name="snapshot"\r\n\r\n' + data + b"\r\n--xyz--\r\n"


@pytest.mark.parametrize("location, status, text", [
    ("http://10.0.0.1/x.snapshot", 403, "Forbidden: Snapshot recovery from remote URLs is disabled"),
    ("https://example.org/x.snapshot", 403, "Forbidden: Snapshot recovery from remote URLs is disabled"),
    ("file:///etc/passwd", 403, "Forbidden: Snapshot file path must be inside the snapshots directory"),
    ("file:///whatever.snapshot", 400, 'Bad request: Snapshot file "/whatever.snapshot" does not exist'),
    ("file://localhost/whatever.snapshot", 400, 'Bad request: Snapshot file "/whatever.snapshot" does not exist'),
    ("file://whatever.snapshot", 400, "Bad request: Invalid snapshot URI, file path must be absolute or on localhost"),
    ("/etc/passwd", 400, "Bad request: Invalid snapshot URI"),
])
def test_recovery_reads_only_the_snapshots_directory(plain, location, status, text):
    assert error(plain, "PUT", "/collections/a/snapshots/recover", {"location": location}, status).startswith(text)


def test_recovery_does_not_follow_links_out_of_the_directory(plain):
    (plain.data / "snapshots").mkdir(exist_ok=True)
    link = plain.data / "snapshots" / "link.snapshot"
    link.symlink_to("/etc/passwd")
    location = f"file://{link.absolute()}"
    assert "must be inside" in error(plain, "PUT", "/collections/a/snapshots/recover", {"location": location}, 403)


def test_snapshot_names_lead_nowhere_else(plain):
    ask(plain, "PUT", "/collections/a", {"vectors": VECTOR})
    for name in ("nobody.snapshot", "..%2F..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", "..", "."):
        assert plain.get(f"/collections/a/snapshots/{name}").status == 404, name
        assert plain._client.request("DELETE", f"/collections/a/snapshots/{name}").status == 404, name


def test_snapshot_without_wait_is_accepted_and_made(plain):
    ask(plain, "PUT", "/collections/a", {"vectors": VECTOR})
    assert ask(plain, "POST", "/collections/a/snapshots?wait=false", status=202)["status"] == "accepted"
    [snap] = procs.wait_for(lambda: ask(plain, "GET", "/collections/a/snapshots")["result"], 10, "the snapshot")
    ask(plain, "DELETE", f"/collections/a/snapshots/{snap['name']}?wait=false", status=202)
    procs.wait_for(lambda: not ask(plain, "GET", "/collections/a/snapshots")["result"], 10, "the snapshot's end")


def test_snapshot_upload_may_be_larger_than_other_bodies_for_writers_only(serve):
    server = serve({"providers": {}, "limits": {"body": "64KiB"}, "keys": [{"name": "w", "key": "${W}", "scopes": ["write", "read"]}]},
                   env={"W": "writer-key-of-this-test"})
    server.key = "writer-key-of-this-test"
    ask(server, "PUT", "/collections/a", {"vectors": {"size": 512, "distance": "Dot"}})
    for i in range(8):
        points = [{"id": i * 8 + j, "vector": [float(j + i)] * 512} for j in range(8)]
        ask(server, "PUT", "/collections/a/points?wait=true", {"points": points})
    snap = ask(server, "POST", "/collections/a/snapshots")["result"]
    data = server.get(f"/collections/a/snapshots/{snap['name']}").body
    assert len(data) > 65536
    upload(server, "b", data)
    assert ask(server, "POST", "/collections/b/points/count", {})["result"]["count"] == 64
    server.key = None
    got = server.client().request("POST", "/collections/c/snapshots/upload", form(data), {"Content-Type": MULTI})
    assert got.status == 413


# ---- what a cluster would say ----

def test_one_node_says_what_it_is(plain, client):
    client.create_collection("a", vectors_config=models.VectorParams(size=1, distance=models.Distance.DOT))
    client.upsert("a", [models.PointStruct(id=1, vector=[1])], wait=True)
    assert ask(plain, "GET", "/cluster")["result"] == {"status": "disabled"}
    got = ask(plain, "GET", "/collections/a/cluster")["result"]
    assert got == {"peer_id": 0, "shard_count": 1, "local_shards": [{"shard_id": 0, "points_count": 1, "state": "Active"}],
                   "remote_shards": [], "shard_transfers": []}
    assert ask(plain, "GET", "/collections/a/optimizations")["result"]["running"] == []
    assert ask(plain, "GET", "/telemetry")["result"]["collections"]["number_of_collections"] == 1
    assert ask(plain, "GET", "/issues")["result"] == {"issues": []}
    assert ask(plain, "DELETE", "/issues")["result"] is True
    assert ask(plain, "GET", "/snapshots")["result"] == []
    assert "/v1/backup" in error(plain, "POST", "/snapshots", status=501)
    for method, path in (("POST", "/cluster/recover"), ("DELETE", "/cluster/peer/1"), ("POST", "/collections/a/cluster"),
                         ("PUT", "/collections/a/shards"), ("GET", "/collections/a/shards"), ("POST", "/collections/a/shards/delete")):
        assert "standalone mode" in error(plain, method, path, {} if method != "GET" else None, 405), path
    assert client.info().version.startswith("1.")
    assert plain.metric("veckeep_collections") == plain.metric("veckeep_collections_open") == 1
    assert plain.metric("veckeep_collection_points", collection="a") == 1
