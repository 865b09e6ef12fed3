"""Every reply of the Qdrant face against Qdrant's published OpenAPI. The document is not part of this repository: it is taken from
VECKEEP_QDRANT_OPENAPI, else from where this workplace keeps it; without it these tests are skipped (the clients' own models, which
are generated from it, still check every reply elsewhere)."""
import json
import os
import pathlib
import re

import jsonschema
import pytest

SPEC = pathlib.Path(os.environ.get("VECKEEP_QDRANT_OPENAPI",
                                   pathlib.Path(__file__).resolve().parents[3] / "shared/reference/qdrant-openapi-1.19.json"))
pytestmark = pytest.mark.skipif(not SPEC.exists(), reason=f"no OpenAPI document at {SPEC}")


def as_json_schema(node):
    """OpenAPI 3.0's nullable, in JSON Schema's words."""
    if isinstance(node, list):
        return [as_json_schema(n) for n in node]
    if not isinstance(node, dict):
        return node
    out = {k: as_json_schema(v) for k, v in node.items() if k != "nullable"}
    return {"anyOf": [out, {"type": "null"}]} if node.get("nullable") is True else out


@pytest.fixture(scope="module")
def spec():
    return as_json_schema(json.loads(SPEC.read_text()))


class Checked:
    def __init__(self, server, spec):
        self.server, self.spec, self.seen = server, spec, set()
        self.patterns = [(re.compile("^" + re.sub(r"\{[^}]+\}", "[^/]+", p) + "$"), p) for p in spec["paths"]]
        self.patterns.sort(key=lambda p: p[1].count("{"))

    def __call__(self, method, path, body=None, status=200):
        got = self.server._client.request(method, path, body, self.server.headers())
        assert got.status == status, (method, path, got.status, got.body[:400])
        template = next(p for rx, p in self.patterns if rx.match(path.split("?")[0]) and method.lower() in self.spec["paths"][p])
        self.seen.add((method, template))
        responses = self.spec["paths"][template][method.lower()]["responses"]
        schema = responses.get(str(status), responses.get("4XX" if 400 <= status < 500 else "default"))
        content = schema.get("content", {}).get("application/json")
        if content:
            jsonschema.validate(got.json(), {**content["schema"], "components": self.spec["components"]}, cls=jsonschema.Draft7Validator)
        return got.json() if content else got.body


def test_every_reply_fits_the_published_schema(serve, spec):
    call = Checked(serve({}), spec)
    c = "/collections/c"
    call("GET", "/")
    call("PUT", c, {"vectors": {"size": 4, "distance": "Cosine", "hnsw_config": {"m": 8}, "quantization_config": {"scalar": {"type": "int8"}}},
                    "hnsw_config": {"ef_construct": 50}, "optimizers_config": {"indexing_threshold": 10000}, "on_disk_payload": True,
                    "metadata": {"a": [1, {"b": None}]}})
    call("PUT", "/collections/named", {"vectors": {"a": {"size": 3, "distance": "Euclid", "datatype": "float16"},
                                                  "b": {"size": 2, "distance": "Manhattan", "on_disk": True}}})
    call("GET", "/collections")
    call("GET", c + "/exists")
    for kind, field in (("keyword", "city"), ("integer", "n"), ("float", "f"), ("bool", "ok"), ("datetime", "at"), ("geo", "where"), ("uuid", "u"),
                        ({"type": "integer", "lookup": True, "range": False}, "i")):
        call("PUT", c + "/index?wait=true", {"field_name": field, "field_schema": kind})
    points = [{"id": i, "vector": [i, 1, 2, 3], "payload": {"city": "ab"[i % 2], "n": i, "ok": True, "where": {"lon": 1.5, "lat": i}}} for i in range(20)]
    call("PUT", c + "/points?wait=true", {"points": points})
    call("PUT", c + "/points", {"batch": {"ids": [100, 101], "vectors": [[1, 2, 3, 4], [0, 0, 0, 0]], "payloads": [None, {"x": None}]}})
    call("PUT", "/collections/named/points?wait=true&ordering=strong", {"points": [{"id": 1, "vector": {"a": [1, 2, 3]}}, {"id": 2, "vector": {"b": [1, 2]}}]})
    call("GET", c)
    call("GET", "/collections/named")
    call("GET", c + "/points/3")
    call("POST", c + "/points", {"ids": [1, 2, 77], "with_vector": True, "with_payload": ["city"]})
    call("POST", "/collections/named/points", {"ids": [1, 2], "with_vector": ["a"]})
    call("POST", c + "/points/scroll", {"limit": 3, "filter": {"must": [{"key": "city", "match": {"value": "a"}}]}})
    call("POST", c + "/points/scroll", {"limit": 3, "order_by": "n", "with_vector": True})
    call("POST", c + "/points/count", {"filter": {"must": [{"key": "n", "range": {"gte": 5}}]}, "exact": False})
    call("POST", c + "/facet", {"key": "city", "exact": True})
    call("POST", c + "/points/query", {"query": [1, 0, 0, 0], "limit": 5, "with_payload": True, "with_vector": True})
    call("POST", c + "/points/query", {"query": 3})
    call("POST", c + "/points/query", {"prefetch": [{"query": [1, 0, 0, 0]}, {"query": [0, 1, 0, 0]}], "query": {"fusion": "rrf"}})
    call("POST", c + "/points/query", {"query": {"order_by": "n"}})
    call("POST", c + "/points/query", {"query": {"sample": "random"}})
    call("POST", c + "/points/query/batch", {"searches": [{"query": [1, 0, 0, 0]}, {"query": 2, "with_payload": True}]})
    call("POST", c + "/points/query/groups", {"query": [1, 0, 0, 0], "group_by": "city", "limit": 2, "group_size": 2})
    for path, body in (("payload", {"payload": {"k": 1}, "points": [1]}), ("payload/delete", {"keys": ["k"], "points": [1]}),
                       ("payload/clear", {"points": [1]}), ("vectors/delete", None), ("delete", {"points": [19]})):
        if body:
            call("POST", f"{c}/points/{path}?wait=true", body)
    call("PUT", c + "/points/payload?wait=true", {"payload": {"k": 2}, "filter": {"must": [{"has_id": [2]}]}})
    call("PUT", c + "/points/vectors?wait=true", {"points": [{"id": 2, "vector": [9, 9, 9, 9]}]})
    call("POST", "/collections/named/points/vectors/delete?wait=true", {"points": [1], "vector": ["a"]})
    call("POST", c + "/points/batch?wait=true", {"operations": [{"upsert": {"points": [points[0]]}}, {"delete": {"points": [5]}},
                                                              {"set_payload": {"payload": {"q": 1}, "points": [1]}}]})
    call("POST", "/collections/aliases", {"actions": [{"create_alias": {"collection_name": "c", "alias_name": "al"}}]})
    call("GET", "/aliases")
    call("GET", c + "/aliases")
    call("PUT", "/collections/named/vectors/late", {"dense": {"size": 5, "distance": "Dot"}})
    call("DELETE", "/collections/named/vectors/late")
    call("DELETE", c + "/index/f?wait=true")
    call("PATCH", c, {"metadata": {"more": 1}, "optimizers_config": {"indexing_threshold": 5}})
    call("POST", c + "/snapshots?wait=true")
    name = call("GET", c + "/snapshots")["result"][0]["name"]
    call("DELETE", f"{c}/snapshots/{name}")
    call("GET", "/cluster")
    call("GET", c + "/cluster")
    call("GET", "/telemetry")
    call("GET", "/issues")
    for method, path, body, status in (("GET", "/collections/nope", None, 404), ("PUT", c, {"vectors": {"size": 4, "distance": "Dot"}}, 409),
                                       ("PUT", c + "/points", {"points": [{"id": 1, "vector": [1]}]}, 400),
                                       ("POST", c + "/points/query", {"query": [1, 2]}, 400), ("GET", c + "/points/999", None, 404)):
        call(method, path, body, status)
    call("DELETE", c)
    assert len(call.seen) >= 38
