"""llama-index-embeddings-openai, unmodified. It takes its own model names only, so one of those is served."""
import pytest

import procs
from vectors import close, f

embedding = pytest.importorskip("llama_index.embeddings.openai")
MODEL = "text-embedding-3-small"


@pytest.fixture
def model(serve, fake):
    server = serve(procs.config(fake, models={"m": "test/m@1", MODEL: "test/m@1"}))
    return embedding.OpenAIEmbedding(model=MODEL, api_key="unused", api_base=server.url + "/v1", max_retries=1,
                                     embed_batch_size=16)


def test_texts_and_queries(model, fake):
    texts = [f"node {i}" for i in range(40)]
    for row, text in zip(model.get_text_embedding_batch(texts), texts):
        assert close(row, f("m", "none", 8, text))
    assert close(model.get_query_embedding("what?"), f("m", "none", 8, "what?"))
    assert close(model.get_text_embedding("node 7"), f("m", "none", 8, "node 7"))
    assert fake.stats()["inputs"] == 41


def test_line_breaks_are_what_the_client_makes_of_them(model):
    row = model.get_text_embedding("two\nlines")
    assert close(row, f("m", "none", 8, "two lines")) or close(row, f("m", "none", 8, "two\nlines"))
