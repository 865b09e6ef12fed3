"""langchain-openai, unmodified: it sends token arrays and takes base64."""
import pytest

import procs
from vectors import close, f

langchain_openai = pytest.importorskip("langchain_openai")

DOCS = ["The first document.", "Grüße, 東京 😀", "two\nlines", "The first document.", "x" * 500]


@pytest.fixture
def tokens_server(serve, fake):
    return serve(procs.config(fake, space_more={"tokenizer": "cl100k"}))


def embeddings(server, **more):
    return langchain_openai.OpenAIEmbeddings(model="m", api_key="unused", base_url=server.url + "/v1",
                                             tiktoken_model_name="text-embedding-3-small", **more)


def test_token_arrays_are_the_texts_that_they_spell(tokens_server, fake):
    rows = embeddings(tokens_server).embed_documents(DOCS)
    for row, text in zip(rows, DOCS):
        assert close(row, f("m", "none", 8, text)), text
    # and an application that sends text shares what was bought
    got = tokens_server.embed(DOCS)
    assert got.cache["hits"] == len(DOCS)
    assert fake.stats()["inputs"] == len(set(DOCS))


def test_queries_and_chunks(tokens_server, fake):
    e = embeddings(tokens_server, chunk_size=7)
    texts = [f"document number {i}" for i in range(50)]
    for row, text in zip(e.embed_documents(texts), texts):
        assert close(row, f("m", "none", 8, text))
    assert close(e.embed_query("a question"), f("m", "none", 8, "a question"))
    assert fake.stats()["inputs"] == 51


def test_without_the_length_check_it_sends_texts(server):
    e = embeddings(server, check_embedding_ctx_length=False)
    for row, text in zip(e.embed_documents(DOCS), DOCS):
        assert close(row, f("m", "none", 8, text))


def test_a_space_of_another_tokenizer_gets_the_text(server, fake):
    """cl100k is what this client sends to any model: a text that it spells is that text."""
    for row, text in zip(embeddings(server).embed_documents(DOCS), DOCS):
        assert close(row, f("m", "none", 8, text)), text
    assert '"input":[[' not in fake.stats()["requests"][-1]["body"].replace(" ", "")


def test_token_arrays_reach_the_built_in_encoder_as_text(serve):
    """LangChain sends cl100k ids to any model; the encoder's own vocabulary is another, so what it must see is the text."""
    if not (procs.ROOT / "models/all-MiniLM-L6-v2/model.safetensors").exists():
        pytest.skip("no weights: script/fetch-model")
    server = serve({"providers": {"builtin": {}}})
    e = langchain_openai.OpenAIEmbeddings(model="all-MiniLM-L6-v2", api_key="unused", base_url=server.url + "/v1",
                                          tiktoken_model_name="text-embedding-3-small")
    rows = e.embed_documents(DOCS)
    plain = server.embed(DOCS, "all-MiniLM-L6-v2")
    assert plain.cache["hits"] == len(DOCS)
    for row, same in zip(rows, plain.rows()):
        assert close(row, same)
    # It is that encoder: near texts are near, far ones are not.
    near, far, query = (e.embed_query(t) for t in ("How do I move a database?", "A recipe for plum cake", "migrating a database"))
    dot = lambda a, b: sum(x * y for x, y in zip(a, b))
    assert dot(query, near) > 0.6 > 0.2 > dot(query, far)
