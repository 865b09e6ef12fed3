"""litellm as a client, unmodified: openai/<alias> and azure/<deployment>."""
import pytest

from vectors import close, f

litellm = pytest.importorskip("litellm")


def test_openai_alias(server, fake):
    for format in ({}, {"encoding_format": "float"}):
        got = litellm.embedding(model="openai/m", input=["a", "b", "a"], api_base=server.url + "/v1", api_key="unused",
                                **format)
        for d, text in zip(got.data, ["a", "b", "a"]):
            assert close(d["embedding"], f("m", "none", 8, text))
    assert got.usage.prompt_tokens == 6
    assert fake.stats()["inputs"] == 2


def test_azure_deployment(server):
    got = litellm.embedding(model="azure/m", input=["a"], api_base=server.url, api_key="unused", api_version="2024-10-21")
    assert close(got.data[0]["embedding"], f("m", "none", 8, "a"))


def test_errors_are_its_own_classes(server):
    with pytest.raises(litellm.exceptions.NotFoundError):
        litellm.embedding(model="openai/nope", input=["a"], api_base=server.url + "/v1", api_key="unused", max_retries=0)
