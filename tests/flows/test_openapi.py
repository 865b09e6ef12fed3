"""The document at /openapi.json is true: every documented route is driven, and every answer, good or
bad, is validated against the schema that the document gives for its route and status."""
import re

import jsonschema
import pytest

import procs

JSON = "application/json"


class Truth:
    """Validates answers and remembers which operations were seen answering 2xx."""

    def __init__(self, server):
        self.server, self.seen = server, set()
        self.doc = server.get("/openapi.json").json()
        self.patterns = [(re.compile(re.sub(r"\{\w+\}", ".+", path) + "$"), path)
                         for path in sorted(self.doc["paths"], key=lambda p: p.count("{"))]

    def path_of(self, path):
        return next(name for pattern, name in self.patterns if pattern.match(path.split("?")[0]))

    def validate(self, value, schema):
        whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema,
                 "components": self.doc["components"]}
        jsonschema.Draft202012Validator(whole).validate(value)

    def ask(self, method, path, body=None, status=200, headers=None, check_request=True):
        path_name = self.path_of(path)
        op = self.doc["paths"][path_name][method.lower()]
        if body is not None and check_request and status < 300:
            self.validate(body, op["requestBody"]["content"][JSON]["schema"])
        got = self.server._client.request(method, path, body, self.server.headers(headers))
        assert got.status == status, (method, path, got)
        answer = op["responses"][str(status)]
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
    for path in ("/", "/healthz", "/livez", "/readyz", "/openapi.json"):
        ask("GET", path)
    ask("GET", "/metrics")
    key = ask("POST", "/v1/keys", {"name": "ops", "scopes": ["admin"], "expires": "1d"}).json()
    truth.server.key = key["key"]
    ask("GET", "/v1/keys")
    other = ask("POST", "/v1/keys", {"name": "other"}).json()
    ask("DELETE", f"/v1/keys/{other['id']}")

    missing = {(method.upper(), path) for path, item in truth.doc["paths"].items() for method in item} - truth.seen
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
