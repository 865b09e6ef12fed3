"""The document at /openapi.json is true: every documented route is driven, and every answer, good or
bad, is validated against the schema that the document gives for its route and status."""
import random
import re

import jsonschema
import pytest

import procs

JSON = "application/json"
COLLECTIONS = ("/collections", "/v1/collections", "/snapshots")


class Truth:
    """Validates answers and remembers which operations were seen answering 2xx."""

    def __init__(self, server):
        self.server, self.seen = server, set()
        self.doc = server.get("/openapi.json").json()
        self.patterns = [(re.compile(re.sub(r"\{\w+\}", "[^/]+" if path.startswith(COLLECTIONS) else ".+", path) + "$"), path)
                         for path in sorted(self.doc["paths"], key=lambda p: p.count("{"))]

    def path_of(self, path, method=None):
        return next(name for pattern, name in self.patterns
                    if pattern.match(path.split("?")[0]) and (method is None or method.lower() in self.doc["paths"][name]))

    def validate(self, value, schema):
        whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema,
                 "components": self.doc["components"]}
        jsonschema.Draft202012Validator(whole).validate(value)

    def ask(self, method, path, body=None, status=200, headers=None, check_request=True):
        path_name = self.path_of(path, method)
        op = self.doc["paths"][path_name][method.lower()]
        if body is not None and check_request and status < 300 and JSON in op["requestBody"]["content"]:
            self.validate(body, op["requestBody"]["content"][JSON]["schema"])
        got = self.server._client.request(method, path, body, self.server.headers(headers))
        assert got.status == status, (method, path, got)
        answer = op["responses"].get(str(status)) or op["responses"]["default"]
        kind = got.headers["content-type"].split(";")[0]
        assert kind in answer["content"], (method, path, kind)
        if kind == JSON:
            self.validate(got.json(), answer["content"][JSON]["schema"])
        if status < 300:
            self.seen.add((method, path_name))
            for name in answer.get("headers", {}):
                if name != "x-veckeep-truncated" and name != "x-veckeep-provider":
                    assert name.lower() in got.headers, (method, path, name)
        return got


@pytest.fixture
def truth(server):
    return Truth(server)


def test_document_is_openapi_and_its_references_lead_somewhere(truth):
    doc = truth.doc
    assert doc["openapi"].startswith("3.1") and doc["info"]["version"]
    ids = [op["operationId"] for item in doc["paths"].values() for op in item.values()]
    assert len(ids) == len(set(ids))
    for ref in re.findall(r"#/components/schemas/(\w+)", str(doc)):
        assert ref in doc["components"]["schemas"], ref
    for schema in doc["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def drive_collections(ask):
    """Every route of the Qdrant face once, in an order that makes sense."""
    c = "/collections/c"
    dense = {"size": 8, "distance": "Cosine"}
    row = [1.0, 0, 0, 0, 0, 0, 0, 1]
    ask("PUT", c, {"vectors": {"v": dense}})
    ask("PATCH", c, {"metadata": {"team": "search"}})
    ask("GET", c)
    ask("GET", c + "/exists")
    ask("GET", "/collections")
    ask("PUT", c + "/vectors/w?wait=true", {"dense": {"size": 2, "distance": "Dot"}})
    ask("DELETE", c + "/vectors/w?wait=true")
    ask("PUT", c + "/index?wait=true", {"field_name": "k", "field_schema": "keyword"})
    ask("POST", "/collections/aliases", {"actions": [{"create_alias": {"collection_name": "c", "alias_name": "alias"}}]})
    ask("GET", "/aliases")
    ask("GET", c + "/aliases")
    ask("PUT", c + "/points?wait=true", {"points": [{"id": i, "vector": {"v": row}, "payload": {"k": "a"}} for i in range(3)]})
    ask("PUT", c + "/points/vectors", {"points": [{"id": 1, "vector": {"v": row}}]})
    ask("POST", c + "/points/vectors/delete", {"points": [2], "vector": ["v"]})
    ask("POST", c + "/points/payload", {"points": [1], "payload": {"n": 1}})
    ask("PUT", c + "/points/payload", {"points": [2], "payload": {"k": "b"}})
    ask("POST", c + "/points/payload/delete", {"points": [1], "keys": ["n"]})
    ask("POST", c + "/points/payload/clear", {"points": [2]})
    ask("POST", c + "/points/batch", {"operations": [{"delete": {"points": [2]}}]})
    ask("POST", c + "/points/delete", {"points": [2]})
    search = {"vector": {"name": "v", "vector": row}, "limit": 2}
    query = {"query": row, "using": "v", "limit": 2}
    ask("POST", c + "/points/query", query)
    ask("POST", c + "/points/query/batch", {"searches": [query]})
    ask("POST", c + "/points/query/groups", {**query, "group_by": "k"})
    ask("POST", c + "/points/search", search)
    ask("POST", c + "/points/search/batch", {"searches": [search]})
    ask("POST", c + "/points/search/groups", {**search, "group_by": "k", "group_size": 1})
    ask("POST", c + "/points", {"ids": [1]})
    ask("GET", c + "/points/1")
    ask("POST", c + "/points/scroll", {})
    ask("POST", c + "/points/count", {})
    ask("POST", c + "/facet", {"key": "k"})
    ask("DELETE", c + "/index/k?wait=true")
    snap = ask("POST", c + "/snapshots").json()["result"]
    ask("GET", c + "/snapshots")
    data = ask("GET", f"{c}/snapshots/{snap['name']}").body
    form = b'--x\r\nContent-Disposition: form-data; name="snapshot"\r\n\r\n' + data + b"\r\n--x--\r\n"
    ask("POST", "/collections/d/snapshots/upload", form, headers={"Content-Type": "multipart/form-data; boundary=x"})
    where = (ask.__self__.server.data / "snapshots" / "c" / snap["name"]).resolve().as_uri()
    ask("PUT", c + "/snapshots/recover", {"location": where})
    ask("DELETE", f"{c}/snapshots/{snap['name']}?wait=false", status=202)
    again = ask("POST", "/collections/d/snapshots").json()["result"]
    ask("DELETE", f"/collections/d/snapshots/{again['name']}")
    ask("GET", "/snapshots")
    for path in ("/cluster", c + "/cluster", c + "/optimizations", "/telemetry", "/issues", "/v1/collections/c"):
        ask("GET", path)
    ask("DELETE", "/issues")
    ask("PUT", "/collections/e", {"vectors": dense})
    ask("PUT", "/v1/collections/e/spaces", {"spaces": {"": "test/m@1"}})
    index = "/v1/collections/e/index"
    for body in ({"engine": "faiss", "factory": "Flat", "recall": 0.9}, {"engine": "graph", "factory": None, "profile": "s8"}):
        ask("PATCH", index, body)
    ask("GET", index)
    ask("PATCH", "/collections/e", {"hnsw_config": {"m": 64, "ef_construct": 1000}})
    rng = random.Random(1)  # enough to build for that the word comes before the end
    ask("PUT", "/collections/e/points?wait=true",
        {"points": [{"id": i, "vector": [rng.gauss(0, 1) for _ in row]} for i in range(5000)]})
    ask("POST", index + "/rebuild", {"vector": ""})
    ask("POST", index + "/cancel")
    ask("PUT", "/collections/e/documents/d1", {"chunks": ["one", "two"]})
    ask("GET", "/collections/e/documents/d1")
    ask("DELETE", "/collections/e/documents/d1")
    for name in ("c", "d", "e"):
        ask("DELETE", f"/collections/{name}")


def test_every_documented_route_answers_as_documented(truth, tmp_path):
    ask = truth.ask
    embed = {"model": "m", "input": ["a", "b"]}
    for path in ("/v1/embeddings", "/embeddings", "/openai/v1/embeddings",
                 "/openai/deployments/m/embeddings?api-version=2024-10-21"):
        ask("POST", path, {**embed, "encoding_format": "base64", "user": "u"})
        ask("POST", path, embed, headers={"Accept": "application/octet-stream"})
    for path in ("/v1/models", "/models", "/v1/models/m", "/v1/models/test/m@1"):
        ask("GET", path)
    ask("POST", "/api/embed", {"model": "m", "input": ["a"], "truncate": True})
    ask("POST", "/api/embeddings", {"model": "m", "prompt": "a"})
    ask("GET", "/api/tags")
    ask("GET", "/api/version")
    ask("POST", "/v1/inference", {"inputs": [{"data": "a", "data_type": "text", "model": "m", "options": {}}],
                                  "inference": "search", "token": None})
    ask("GET", "/v1/cache")
    ask("POST", "/v1/cache/why", {"text": "a"})
    assert ask("POST", "/v1/cache/why", {"text": "a\n"}).json()["near"]
    ask("POST", "/v1/cache/purge", {"texts": ["a"], "pool": "default", "older_than": "1d", "dry_run": True})
    ask("GET", "/v1/spaces")
    ask("GET", "/v1/spaces/test/m@1")
    ask("GET", "/v1/providers")
    assert ask("GET", "/v1/usage?from=2020-01-01").json()["data"]
    ask("POST", "/v1/backup", {"dir": str(tmp_path / "backup")})
    for path in ("/", "/healthz", "/livez", "/readyz", "/v1/health", "/openapi.json"):
        ask("GET", path)
    ask("GET", "/metrics")
    drive_collections(ask)
    key = ask("POST", "/v1/keys", {"name": "ops", "scopes": ["admin"], "expires": "1d"}).json()
    truth.server.key = key["key"]
    ask("GET", "/v1/keys")
    other = ask("POST", "/v1/keys", {"name": "other"}).json()
    ask("DELETE", f"/v1/keys/{other['id']}")

    # Routes that this version only refuses have no good answer to show.
    missing = {(method.upper(), path) for path, item in truth.doc["paths"].items() for method, op in item.items()
               if "200" in op["responses"]} - truth.seen
    assert not missing


@pytest.mark.parametrize("method, path, body, status", [
    ("POST", "/v1/embeddings", {"model": "m", "input": []}, 400),
    ("POST", "/v1/embeddings", {"model": "m", "input": ["a", ""]}, 400),
    ("POST", "/v1/embeddings", {"model": "m", "input": "a", "unheard_of": 1}, 400),
    ("POST", "/v1/embeddings", {"model": "nobody", "input": "a"}, 404),
    ("POST", "/api/embed", {"model": "nobody", "input": "a"}, 404),
    ("POST", "/v1/cache/purge", {}, 400),
    ("POST", "/v1/cache/purge", {"space": "nowhere"}, 404),
    ("GET", "/v1/models/nobody", None, 404),
    ("GET", "/v1/spaces/nowhere", None, 404),
    ("GET", "/v1/usage?from=yesterday", None, 400),
    ("POST", "/v1/keys", {"name": "x", "scopes": ["all"]}, 400),
    ("DELETE", "/v1/keys/nobody", None, 404),
    ("POST", "/v1/backup", {"dir": "relative"}, 400),
    ("GET", "/collections/nobody", None, 404),
    ("PUT", "/collections/c", {"vectors": {"size": 0, "distance": "Dot"}}, 422),
    ("PUT", "/collections/c/points", {"points": []}, 404),
    ("POST", "/collections/aliases", {"actions": 1}, 400),
    ("PUT", "/collections/c/snapshots/recover", {"location": "http://example.org/"}, 403),
    ("POST", "/snapshots", None, 501),
    ("GET", "/snapshots/x", None, 404),
    ("DELETE", "/snapshots/x", None, 404),
    ("POST", "/cluster/recover", None, 405),
    ("DELETE", "/cluster/peer/1", None, 405),
    ("POST", "/collections/c/cluster", {}, 405),
    ("GET", "/collections/c/shards", None, 405),
    ("PUT", "/collections/c/shards", {}, 405),
    ("POST", "/collections/c/shards/delete", {}, 405),
])
def test_errors_have_the_documented_shape(truth, method, path, body, status):
    truth.ask(method, path, body, status, check_request=False)


def test_not_cached_and_upstream_errors_have_the_documented_shape(truth, fake):
    got = truth.ask("POST", "/v1/embeddings", {"model": "m", "input": ["x"]}, 504, {"Cache-Control": "only-if-cached"},
                    check_request=False)
    assert got.json()["error"]["code"] == "not_cached"
    fake.fault("wrong_dims")
    truth.ask("POST", "/v1/embeddings", {"model": "m", "input": ["y"]}, 502, check_request=False)


def test_missing_and_weak_keys_have_the_documented_shape(truth):
    server = truth.server
    admin = truth.ask("POST", "/v1/keys", {"name": "ops", "scopes": ["admin"]}).json()["key"]
    truth.ask("GET", "/v1/spaces", status=401)
    server.key = admin
    weak = truth.ask("POST", "/v1/keys", {"name": "weak", "scopes": ["metrics"]}).json()["key"]
    server.key = weak
    truth.ask("GET", "/v1/keys", status=403)
    truth.ask("GET", "/metrics")


def test_routes_of_the_program_are_all_documented(truth):
    """What the table of routes serves stands in the document, and the other way round."""
    source = (procs.ROOT / "server" / "routes.c").read_text()
    served = {(m, re.sub(r"\.\.\.\}", "}", p)) for m, p in re.findall(r'\{VK_(\w+), "([^"]+)"', source)}
    documented = {(method.upper(), path) for path, item in truth.doc["paths"].items() for method in item}
    assert served == documented
