"""Bad input: each is a clear OpenAI-shaped error, costs no upstream call, and the server goes on.
Method: one table of bodies with status and what the error must say."""
import pytest

import procs
from wire import positions_of

LONG = "x" * 100


def shaped(answer, status):
    assert answer.status == status, answer
    assert answer.headers["content-type"].startswith("application/json")
    error = answer.error
    assert set(error) >= {"message", "type", "param", "code"}, error
    assert error["message"] and error["type"]
    return error


@pytest.fixture
def calm(server, fake, check):
    """After the test the server still answers, and nothing went upstream meanwhile."""
    yield server
    assert fake.stats()["calls"] == 0
    check(server.embed("still alive"), ["still alive"])


BROKEN = ["", " ", "{", "}", "[]", "null", "1", '"text"', '{"model":"m","input":"a"', '{"model":"m","input":"a"}}',
          '{"model":"m","input":"a"} x', "{'model':'m','input':'a'}", '{"model":"m","input":"a",}', '{"model":"m" "input":"a"}',
          '{"model":"m","input":"a","input":"b"}', '{"model":"m","input":"tab\tin string"}', '{"model":"m","input":"\\x"}',
          "[" * 10000, '{"a":' * 10000, '{"model":"m","input":NaN}', '{"model":"m","input":01}', "\ufeff{}", "\x00",
          '{"model":"m","input":["a",]}', '// c\n{"model":"m","input":"a"}']


@pytest.mark.parametrize("body", BROKEN, ids=lambda b: repr(b[:30]))
def test_broken_json_is_a_400(calm, body):
    assert shaped(calm.post("/v1/embeddings", body, {"Content-Type": "application/json"}), 400)["type"] == "invalid_request_error"


@pytest.mark.parametrize("body,param", [
    ({"input": "a"}, "model"), ({"model": "m"}, "input"), ({}, None), ({"model": 1, "input": "a"}, "model"),
    ({"model": None, "input": "a"}, "model"), ({"model": "", "input": "a"}, None), ({"model": "m", "input": None}, "input"),
    ({"model": "m", "input": 1}, "input"), ({"model": "m", "input": {}}, "input"), ({"model": "m", "input": True}, "input"),
    ({"model": "m", "input": []}, "input"), ({"model": "m", "input": [[]]}, "input"), ({"model": "m", "input": ["a", 1]}, "input"),
    ({"model": "m", "input": ["a", None]}, "input"), ({"model": "m", "input": [["a"]]}, "input"),
    ({"model": "m", "input": [1, "a"]}, "input"), ({"model": "m", "input": [[1], "a"]}, "input"),
    ({"model": "m", "input": [-1]}, "input"), ({"model": "m", "input": [1.5]}, "input"),
    ({"model": "m", "input": [2 ** 40]}, "input"), ({"model": "m", "input": "a", "dimensions": 4}, "dimensions"),
    ({"model": "m", "input": "a", "dimensions": "8"}, "dimensions"),
    ({"model": "m", "input": "a", "encoding_format": "int8"}, "encoding_format"),
    ({"model": "m", "input": "a", "input_type": 5}, "input_type"),
    ({"model": "m", "input": "a", "input_type": "no such role"}, "input_type"),
    ({"model": "m", "input": "a", "user": 5}, "user"), ({"model": "m", "input": "a", "nonsense": 1}, "nonsense"),
], ids=lambda v: str(v)[:50])
def test_a_wrong_field_is_a_400_that_names_it(calm, body, param):
    if body.get("model") == "":
        assert calm.post("/v1/embeddings", body).status in (400, 404)
        return
    error = shaped(calm.post("/v1/embeddings", body), 400)
    if param:
        assert error["param"] == param or param in error["message"], error


def test_an_unknown_model_is_a_404_model_not_found(calm):
    error = shaped(calm.embed("a", "no-such-model"), 404)
    assert error["code"] == "model_not_found" and "no-such-model" in error["message"]
    error = shaped(calm.embed("a", "m#nonsense"), 404) if calm.embed("a", "m#nonsense").status == 404 else \
        shaped(calm.embed("a", "m#nonsense"), 400)
    assert "nonsense" in error["message"]
    assert shaped(calm.get("/v1/models/nope"), 404)["code"] == "model_not_found"


def test_hostile_model_names_are_answered_without_harm(calm):
    for name in ("../../etc/passwd", "m\r\nX-Evil: 1", "m" * 100000, "%s%n", "\u202em", "m\x7f"):
        got = calm.embed("a", name)
        assert got.status in (400, 404) and "x-evil" not in got.headers
        assert len(got.error["message"]) < 2000


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/api/chat", "/api/generate"])
def test_a_chat_request_is_told_what_to_do_instead(calm, path):
    got = calm.post(path, {"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    assert got.status == 404
    assert "embed" in got.body.decode().lower()


def test_unknown_routes_and_methods(calm):
    shaped(calm.post("/v1/embedding", {}), 404)
    shaped(calm.get("/v1/embeddings"), 405)
    shaped(calm._client.request("DELETE", "/v1/embeddings"), 405)
    assert calm._client.request("BREW", "/v1/embeddings").status in (400, 404, 405, 501)
    for path in ("/v1/../etc/passwd", "/v1/models/%00", "/v1/models/%zz", "/%2e%2e/%2e%2e/etc/passwd", "//", "/v1//models"):
        assert 400 <= calm.get(path).status < 500, path


def test_too_many_inputs_are_a_400(calm):
    error = shaped(calm.embed(["a"] * 2049), 400)
    assert error["param"] == "input" and "2048" in error["message"]


def test_a_text_of_more_than_a_mebibyte_is_a_400_that_names_it(calm):
    error = shaped(calm.embed(["a", "x" * ((1 << 20) + 1)]), 400)
    assert error["param"] == "input" and positions_of(error) == [1]


def test_a_text_beyond_the_models_limit_is_a_400_and_names_it(serve, make_fake):
    fake = make_fake("--caps-input-tokens", 50)
    server = serve(procs.config(fake))
    got = server.embed(["short", "word " * 60, "also short"])
    error = shaped(got, 400)
    assert "1" in error["message"]
    assert server.embed("word " * 60).status == 400


def test_a_body_beyond_the_cap_is_a_413(calm):
    shaped(calm.embed("x" * (34 << 20)), 413)


def test_another_content_type_is_taken_as_json_or_refused(calm, check, fake):
    got = calm.post("/v1/embeddings", '{"model":"m","input":"a"}', {"Content-Type": "text/plain"})
    assert got.status in (200, 415)
    fake.reset()


def test_pretty_printed_and_reordered_json_is_one_question(server, fake, check):
    for body in ('{"model":"m","input":"a"}', '{\n  "input" : "a" ,\r\n\t"model" : "m"\n}\n', '{"input":["a"],"model":"m","user":"x"}',
                 '{"model":"\\u006d","input":"\\u0061"}'):
        check(server.post("/v1/embeddings", body, {"Content-Type": "application/json"}), ["a"])
    assert fake.stats()["inputs"] == 1


def test_the_ollama_route_speaks_ollamas_errors(calm):
    for path, body in (("/api/embed", {"model": "nope", "input": "a"}), ("/api/embeddings", {"model": "nope", "prompt": "a"})):
        got = calm.post(path, body)
        assert got.status == 404 and isinstance(got.json()["error"], str), got
    got = calm.post("/api/embed", "{")
    assert got.status == 400 and isinstance(got.json()["error"], str)
