"""The fake provider itself. Goal: a fault that the fake does not have cannot be found in the server,
so its vectors, dialects and faults are shown here, with the providers' own clients where they exist."""
import asyncio
import base64
import json
import socket
import time

import numpy as np
import pytest

from vectors import f, same_bits
from wire import Client, Raw


def post(fake, body, path="/v1/embeddings", headers=None):
    return fake.client.post(path, body, headers)


def test_vector_function_matches_the_published_values():
    assert np.allclose(f("m", "none", 8, "a")[:3],
                       [-0.49516332149505615, -0.2738215923309326, 0.43341612815856934], rtol=0, atol=0)
    assert np.allclose(f("m", "none", 8, "b c")[:3],
                       [-0.6492960453033447, 0.9835889339447021, 0.1553100347518921], rtol=0, atol=0)


TEXTS = ["a", "b c", "", " lead", "über straße", "日本語", "😀 emoji", "line\nbreak", "tab\tq\"uote\\", "x" * 3000]


@pytest.mark.parametrize("format", ["float", "base64"])
@pytest.mark.parametrize("dims", [1, 8, 1536])
def test_each_encoding_carries_the_same_bits(make_fake, check, format, dims):
    fake = make_fake(dims=dims)
    texts = [t for t in TEXTS if t]
    check(post(fake, {"model": "m", "input": texts, "encoding_format": format}), texts, dims=dims)


def test_all_four_input_forms_are_answered(fake):
    for given, inputs in (("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2, 70000], [[1, 2, 70000]]),
                          ([[1], [2, 3]], [[1], [2, 3]])):
        rows = post(fake, {"model": "m", "input": given}).rows()
        assert all(same_bits(r, f("m", "none", 8, i)) for r, i in zip(rows, inputs)), given


def test_role_space_and_dims_change_the_vector(make_fake):
    fake = make_fake("--space", "S", dims=8)
    a = post(fake, {"model": "any", "input": "a", "input_type": "query"}).rows()[0]
    assert same_bits(a, f("S", "query", 8, "a"))
    b = post(fake, {"model": "any", "input": "a", "dimensions": 4}).rows()[0]
    assert same_bits(b, f("S", "none", 4, "a"))
    assert not same_bits(b, f("S", "none", 8, "a")[:4])
    assert post(fake, {"model": "any", "input": "a", "dimensions": 9}).status == 400


def test_usage_counts_words_and_one(fake):
    assert post(fake, {"model": "m", "input": ["a", "b  c\n d"]}).json()["usage"]["prompt_tokens"] == 2 + 4
    assert post(fake, {"model": "m", "input": [5, 6, 7]}).json()["usage"]["prompt_tokens"] == 3


def test_openai_clients_speak_with_it(fake, make_fake):
    openai = pytest.importorskip("openai")
    one = openai.OpenAI(api_key="k", base_url=fake.url + "/v1")
    for format in (openai.NOT_GIVEN, "float"):
        got = one.embeddings.create(model="m", input=["a", "b"], encoding_format=format)
        assert same_bits(got.data[1].embedding, f("m", "none", 8, "b"))
    assert fake.stats()["requests"][-2]["base64"] and not fake.stats()["requests"][-1]["base64"]
    locked = make_fake("--api-key", "secret")
    azure = openai.AzureOpenAI(api_key="secret", api_version="2024-10-21", azure_endpoint=locked.url)
    assert same_bits(azure.embeddings.create(model="dep", input="a").data[0].embedding, f("dep", "none", 8, "a"))
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(api_key="wrong", base_url=locked.url + "/v1").embeddings.create(model="m", input="a")
    many = openai.AsyncOpenAI(api_key="k", base_url=fake.url + "/v1")

    async def both():
        return await asyncio.gather(*(many.embeddings.create(model="m", input=str(i)) for i in range(20)))
    for i, got in enumerate(asyncio.run(both())):
        assert same_bits(got.data[0].embedding, f("m", "none", 8, str(i)))


def test_ollama_client_speaks_with_it(fake):
    ollama = pytest.importorskip("ollama")
    client = ollama.Client(host=fake.url)
    got = client.embed(model="m", input=["a", "b"])
    assert same_bits(got["embeddings"][1], f("m", "none", 8, "b"))
    assert same_bits(client.embeddings(model="m", prompt="a")["embedding"], f("m", "none", 8, "a"))
    assert client.list()["models"]


def test_tei_native_route_answers_bare_arrays(make_fake):
    fake = make_fake("--caps-items", 2, "--space", "S")
    got = post(fake, {"inputs": ["a", "b"], "prompt_name": "query"}, "/embed")
    assert same_bits(got.json()[1], f("S", "query", 8, "b"))
    assert got.headers["x-compute-tokens"] == "4"
    over = post(fake, {"inputs": ["a", "b", "c"]}, "/embed")
    assert over.status == 422 and over.json()["error"] == "batch size 3 > maximum allowed batch size 2"
    assert fake.client.get("/info").json()["max_client_batch_size"] == 2


def test_caps_are_refused_in_the_dialects_own_way(make_fake):
    fake = make_fake("--caps-items", 3, "--caps-tokens", 10, "--caps-bytes", 500, "--caps-input-tokens", 8)
    assert post(fake, {"model": "m", "input": ["a"] * 3}).status == 200
    assert post(fake, {"model": "m", "input": ["a"] * 4}).status == 400
    assert post(fake, {"model": "m", "input": ["a b c d", "a b c d e f"]}).error["code"] == "max_tokens_per_request"
    assert "maximum context length" in post(fake, {"model": "m", "input": "a b c d e f g h i"}).error["message"]
    assert post(fake, {"model": "m", "input": "x" * 600}).status == 413
    assert isinstance(post(fake, {"model": "m", "input": ["a"] * 4}, "/api/embed").json()["error"], str)


def test_strict_refuses_what_the_provider_does_not_know(make_fake):
    fake = make_fake("--strict")
    assert post(fake, {"model": "m", "input": "a", "user": "u", "encoding_format": "float"}).status == 200
    assert "input_type" in post(fake, {"model": "m", "input": "a", "input_type": "query"}).error["message"]
    assert post(fake, {"model": "m", "input": "a", "encoding_format": None}).status == 400
    knows = make_fake("--strict", "--role-field", "input_type")
    assert post(knows, {"model": "m", "input": "a", "input_type": "query"}).status == 200


def test_bad_bodies_are_400(fake):
    for body in ("", "{", "[]", '{"model":"m"}', '{"model":"m","input":[]}', '{"model":"m","input":["a",1]}',
                 '{"model":"m","input":["a",""]}', '{"model":"m","input":"a","input":"b"}',
                 '{"model":"m","input":"\\ud800"}', b'{"model":"m","input":"\xff"}', '{"model":"m","input":"a"} x'):
        assert post(fake, body).status == 400, body


def test_chunked_bodies_pipelining_and_expect(fake):
    body = b'{"model":"m","input":"a"}'
    with Raw("127.0.0.1", fake.port) as raw:
        raw.send("POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(0, len(body), 7):
            raw.send(b"%x\r\n%s\r\n" % (len(body[i:i + 7]), body[i:i + 7]))
        raw.send("0\r\n\r\n")
        assert same_bits(raw.read_answer().rows()[0], f("m", "none", 8, "a"))
        one = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        raw.send(one * 5)
        assert [raw.read_answer().status for _ in range(5)] == [200] * 5
        raw.send(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
                 % len(body))
        assert raw.read_answer().status == 100
        raw.send(body)
        assert raw.read_answer().status == 200


# ---- faults ----

ASK = {"model": "m", "input": ["a", "b", "c", "d"]}


def ask(fake, **more):
    return post(fake, {**ASK, **more})


def test_shuffle_moves_every_item_and_keeps_its_index(fake, check):
    fake.fault("shuffle")
    for _ in range(20):
        data = ask(fake).json()["data"]
        assert sorted(d["index"] for d in data) == [0, 1, 2, 3]
        assert all(d["index"] != i for i, d in enumerate(data))
        for d in data:
            assert same_bits(d["embedding"], f("m", "none", 8, ASK["input"][d["index"]]))


def test_wrong_lists(fake):
    def indices(mode, **more):
        fake.clear()
        fake.fault(mode, **more)
        return [d.get("index") for d in ask(fake).json()["data"]]
    assert len(indices("drop")) == 3
    assert indices("wrong_count") == [0, 1, 2, 3, 4]
    assert len(set(indices("duplicate"))) == 3
    assert indices("no_index") == [None] * 4
    assert 9 in indices("bad_index")
    assert -1 in indices("bad_index", value=-1)
    assert "0" in indices("bad_index", body='"0"')


def test_wrong_rows(fake):
    def rows(mode, **more):
        fake.clear()
        fake.fault(mode)
        return [np.asarray(r) for r in ask(fake, **more).rows()]
    assert sum(not np.isfinite(r).all() for r in rows("nan")) == 1
    assert sum(not np.isfinite(r).all() for r in rows("nan", encoding_format="base64")) == 1
    assert sum(not np.isfinite(r).all() for r in rows("inf", encoding_format="base64")) == 1
    assert sum(not r.any() for r in rows("zero")) == 1
    assert {len(r) for r in rows("wrong_dims")} == {9}
    assert sorted(len(r) for r in rows("mixed_dims")) == [7, 8, 8, 8]
    assert same_bits(rows("drift")[0], f("drifted", "none", 8, "a"))
    fake.clear()
    fake.fault("inf")
    assert b"1e999" in ask(fake).body
    fake.clear()
    fake.fault("null_embedding")
    assert sum(d["embedding"] is None for d in ask(fake).json()["data"]) == 1
    fake.clear()
    fake.fault("base64_ignored")
    assert isinstance(ask(fake, encoding_format="base64").json()["data"][0]["embedding"], list)


def test_status_headers_body_and_order(fake):
    fake.fault("status", status=429, times=2, headers={"retry-after": "1"})
    got = ask(fake)
    assert (got.status, got.headers["retry-after"], got.error["code"]) == (429, "1", "rate_limit_exceeded")
    assert ask(fake).status == 429 and ask(fake).status == 200
    fake.fault("status", status=503, after=1, times=1, body="down")
    assert [ask(fake).status for _ in range(3)] == [200, 503, 200]
    fake.clear()
    fake.fault("html200")
    assert ask(fake).headers["content-type"].startswith("text/html")
    fake.clear()
    fake.fault("error200")
    assert ask(fake).status == 200 and ask(fake).error
    fake.clear()
    fake.fault("poison", match="c")
    assert ask(fake).status == 400 and ask(fake, input="c").status == 400 and ask(fake, input="a").status == 200
    fake.clear()
    fake.fault("redirect", location="http://127.0.0.1:1/x")
    assert (ask(fake).status, ask(fake).headers["location"]) == (307, "http://127.0.0.1:1/x")


def test_wire_faults(fake):
    def raw(mode, **more):
        fake.clear()
        fake.fault(mode, **more)
        r = Raw("127.0.0.1", fake.port)
        body = json.dumps(ASK)
        r.send(f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}")
        return r
    with raw("truncate_body", bytes=20) as r:
        assert r.closed_within(2) and len(r.buf.split(b"\r\n\r\n")[1]) == 20
    with raw("truncate_body", bytes=20, clean=True) as r:
        assert len(r.read_answer().body) == 20
    with raw("rst") as r, pytest.raises(ConnectionResetError):
        r._more()
    with raw("hang") as r:
        assert not r.closed_within(0.3) and not r.buf
    with raw("hang", ms=100) as r:
        assert r.closed_within(1) and not r.buf
    with raw("stall_headers") as r:
        assert not r.closed_within(0.3) and r.buf.startswith(b"HTTP/1.1 200") and b"\r\n\r\n" not in r.buf
    with raw("close_idle") as r:
        assert r.read_answer().status == 200 and r.closed_within(1)
    with raw("huge", bytes=3_000_000) as r:
        assert len(r.read_answer().body) > 3_000_000
    start = time.monotonic()
    with raw("slow_drip", bytes=100, ms=20) as r:
        assert r.read_answer().status == 200 and time.monotonic() - start > 0.08
    start = time.monotonic()
    with raw("delay", ms=200) as r:
        assert r.read_answer().status == 200 and time.monotonic() - start >= 0.19


def test_probability_is_seeded_and_replays(make_fake):
    def run(seed):
        fake = make_fake(seed=seed)
        fake.fault("status", status=500, p=0.5)
        return [ask(fake).status for _ in range(60)]
    first = run(7)
    assert first == run(7) and first != run(8) and 15 < first.count(500) < 45


def test_stats_count_calls_texts_and_flights(fake):
    ask(fake)
    post(fake, {"model": "m", "input": ["a", "é"], "input_type": "query"}, headers={"X-Org": "acme"})
    got = fake.stats()
    assert (got["calls"], got["inputs"]) == (2, 6)
    assert got["by_text"] == {"a": 2, "b": 1, "c": 1, "d": 1, "é": 1}
    assert fake.counts("query") == {("m", "query", "a"): 1, ("m", "query", "é"): 1}
    assert got["requests"][-1]["headers"]["x-org"] == "acme"
    fake.fault("delay", ms=300)
    clients = [Client("127.0.0.1", fake.port) for _ in range(3)]
    socks = []
    for _ in range(3):
        s = socket.create_connection(("127.0.0.1", fake.port))
        body = json.dumps(ASK).encode()
        s.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        socks.append(s)
    fake.wait_in_flight(3)
    socks[0].close()
    time.sleep(0.5)
    got = fake.stats()
    assert (got["in_flight"], got["max_in_flight"], got["gone"]) == (0, 3, 1)
    for s in socks[1:] + clients:
        s.close()


def test_base64_is_little_endian_f32(fake):
    raw = base64.b64decode(ask(fake, encoding_format="base64").json()["data"][0]["embedding"])
    assert raw == f("m", "none", 8, "a").astype("<f4").tobytes()
