"""ollama for Python, unmodified; and Ollama, TEI and Azure as providers behind the server."""
import pytest

import procs
from vectors import close, f, same_bits

ollama = pytest.importorskip("ollama")


def test_ollama_client(server, fake):
    c = ollama.Client(host=server.url)
    got = c.embed(model="m", input=["a", "b", "a"])
    assert got["model"] == "m"
    for row, text in zip(got["embeddings"], ["a", "b", "a"]):
        assert same_bits(row, f("m", "none", 8, text))
    assert same_bits(c.embed(model="m", input="a")["embeddings"][0], f("m", "none", 8, "a"))
    assert same_bits(c.embeddings(model="m", prompt="a")["embedding"], f("m", "none", 8, "a"))
    assert fake.stats()["inputs"] == 2
    assert c.embed(model="m", input=[])["embeddings"] == []
    assert "m" in [m["model"] for m in c.list()["models"]]
    with pytest.raises(ollama.ResponseError) as e:
        c.embed(model="nope", input="a")
    assert e.value.status_code == 404


def test_a_text_is_one_text_whatever_api_it_comes_through(server, fake):
    server.embed(["shared"])
    got = ollama.Client(host=server.url).embed(model="m", input="shared")
    assert same_bits(got["embeddings"][0], f("m", "none", 8, "shared"))
    assert fake.stats()["inputs"] == 1


@pytest.mark.parametrize("dialect,space,path", [("ollama", "m", "/api/embed"), ("tei", "tei", "/embed"),
                                                ("azure-openai", "m", None), ("openai", "m", "/v1/embeddings")])
def test_each_dialect_as_a_provider(make_fake, serve, check, dialect, space, path):
    fake = make_fake("--api-key", "K", "--strict")
    more = {"api_version": "2024-10-21"} if dialect == "azure-openai" else {}
    server = serve(procs.config(fake, providers={"fake": procs.provider(fake, dialect, api_key="K", **more)}))
    texts = ["a", "b", "über 日本 😀", "a"]
    got = server.embed(texts)
    check(got, texts, space=space)
    check(server.embed_cached(texts), texts, space=space)
    seen = fake.stats()["requests"][-1]
    assert seen["n"] == 3 and (path is None or seen["path"] == path), seen
    if dialect == "azure-openai":
        assert seen["headers"].get("api-key") == "K" or seen["headers"].get("authorization") == "Bearer K"
    # 8 tokens were billed for three texts; the repeated one counts again with its share of them.
    assert 8 <= got.json()["usage"]["prompt_tokens"] <= 2 + 2 + 4 + 2


def test_tei_takes_its_roles_as_prompt_names(make_fake, serve):
    fake = make_fake()
    server = serve(procs.config(fake, providers={"fake": procs.provider(fake, "tei")},
                                space_more={"roles": {"query": {"value": "query"}, "document": {"value": "passage"}}}))
    assert close(server.embed("a", input_type="query").rows()[0], f("tei", "query", 8, "a"))
    assert close(server.embed("a", input_type="document").rows()[0], f("tei", "passage", 8, "a"))


def test_qdrants_inference_service(serve, fake):
    """The route that a self-hosted Qdrant calls: update is role document, search is query."""
    server = serve(procs.config(fake, provider_more={"role_field": "input_type"}, space_more={"roles": procs.ROLES}))
    for kind, role in (("update", "document"), ("search", "query")):
        got = server.post("/v1/inference", {"inputs": [{"data": "a", "data_type": "text", "model": "m", "options": {}},
                                                {"data": "b", "data_type": "text", "model": "m"}], "inference": kind})
        assert got.status == 200, got
        rows = got.json()["embeddings"]
        assert same_bits(rows[0], f("m", role, 8, "a")) and same_bits(rows[1], f("m", role, 8, "b"))
