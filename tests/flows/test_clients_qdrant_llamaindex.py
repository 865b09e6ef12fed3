"""LlamaIndex's Qdrant store pointed at veckeep: add, query with filters, delete by document, sync and async."""
import asyncio

import pytest

pytest.importorskip("llama_index.vector_stores.qdrant")

from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode  # noqa: E402
from llama_index.core.vector_stores.types import (ExactMatchFilter, MetadataFilter, MetadataFilters,  # noqa: E402
                                                  FilterOperator, VectorStoreQuery)
from llama_index.vector_stores.qdrant import QdrantVectorStore  # noqa: E402
from qdrant_client import AsyncQdrantClient, QdrantClient  # noqa: E402


def nodes():
    def one(i, vector, author, year):
        return TextNode(id_=f"00000000-0000-0000-0000-00000000000{i}", text=f"text {i}", embedding=vector,
                        metadata={"author": author, "year": year},
                        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc{i % 2}")})
    return [one(0, [1.0, 0.0, 0.0], "A", 1999), one(1, [0.9, 0.1, 0.0], "B", 2005),
            one(2, [0.0, 1.0, 0.0], "A", 2010), one(3, [0.0, 0.0, 1.0], "B", 2020)]


@pytest.fixture
def store(serve):
    server = serve({})
    client = QdrantClient(url=server.url, check_compatibility=False)
    aclient = AsyncQdrantClient(url=server.url, check_compatibility=False)
    one = QdrantVectorStore(collection_name="llama", client=client, aclient=aclient)
    one.add(nodes())
    yield one
    client.close()


def texts(result):
    return [n.get_content() for n in result.nodes]


def test_query_gives_the_nearest_nodes_whole(store):
    got = store.query(VectorStoreQuery(query_embedding=[1.0, 0.0, 0.0], similarity_top_k=2))
    assert texts(got) == ["text 0", "text 1"]
    assert got.nodes[0].metadata["author"] == "A" and got.similarities[0] == pytest.approx(1.0, abs=1e-5)
    assert got.ids[0] == nodes()[0].node_id


def test_metadata_filters_reach_the_server(store):
    def ask(*filters):
        return texts(store.query(VectorStoreQuery(query_embedding=[1.0, 0.0, 0.0], similarity_top_k=4,
                                                  filters=MetadataFilters(filters=list(filters)))))
    assert ask(ExactMatchFilter(key="author", value="B")) == ["text 1", "text 3"]
    assert ask(MetadataFilter(key="year", value=2005, operator=FilterOperator.GT)) == ["text 2", "text 3"]
    assert ask(MetadataFilter(key="author", value=["A", "X"], operator=FilterOperator.IN)) == ["text 0", "text 2"]
    assert ask(ExactMatchFilter(key="author", value="nobody")) == []


def test_delete_takes_a_document_with_all_its_nodes(store):
    store.delete("doc0")
    assert texts(store.query(VectorStoreQuery(query_embedding=[1.0, 0.0, 0.0], similarity_top_k=4))) == ["text 1", "text 3"]
    store.delete_nodes(["00000000-0000-0000-0000-000000000001"])
    assert [n.get_content() for n in store.get_nodes(["00000000-0000-0000-0000-000000000003"])] == ["text 3"]
    store.clear()


def test_async_client_works_the_same(store):
    async def ask():
        got = await store.aquery(VectorStoreQuery(query_embedding=[0.0, 0.0, 1.0], similarity_top_k=1))
        await store.adelete("doc1")
        rest = await store.aquery(VectorStoreQuery(query_embedding=[0.0, 0.0, 1.0], similarity_top_k=4))
        return texts(got), sorted(texts(rest))
    assert asyncio.run(ask()) == (["text 3"], ["text 0", "text 2"])
