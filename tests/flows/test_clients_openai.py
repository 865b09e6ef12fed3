"""openai for Python, unmodified: sync, async, Azure; its retries and its errors."""
import asyncio

import pytest

import procs
from vectors import cut, close, f, same_bits

openai = pytest.importorskip("openai")


def client(server, **more):
    return openai.OpenAI(api_key=server.key or "unused", base_url=server.url + "/v1", **more)


def test_texts_in_each_form_and_encoding(server, fake):
    c = client(server)
    for format in (openai.NOT_GIVEN, "float", "base64"):
        got = c.embeddings.create(model="m", input=["a", "b", "a"], encoding_format=format)
        assert [d.index for d in got.data] == [0, 1, 2] and got.model == "m" and got.object == "list"
        if format != "base64":
            for d, t in zip(got.data, "aba"):
                assert same_bits(d.embedding, f("m", "none", 8, t))
    one = c.embeddings.create(model="m", input="a", user="me")
    assert same_bits(one.data[0].embedding, f("m", "none", 8, "a"))
    assert one.usage.prompt_tokens == 2 and one.usage.total_tokens == 2
    assert fake.stats()["inputs"] == 2


def test_dimensions(make_fake, serve):
    fake = make_fake(dims=32)
    server = serve(procs.config(fake, space_more={"matryoshka": True}))
    got = client(server).embeddings.create(model="m", input="a", dimensions=8)
    assert close(got.data[0].embedding, cut(f("m", "none", 32, "a"), 8))


def test_roles_by_extra_body(serve, fake):
    server = serve(procs.config(fake, provider_more={"role_field": "input_type"}, space_more={"roles": procs.ROLES}))
    c = client(server)
    got = c.embeddings.create(model="m", input="a", extra_body={"input_type": "query"})
    assert same_bits(got.data[0].embedding, f("m", "query", 8, "a"))
    assert same_bits(c.embeddings.create(model="m#document", input="a").data[0].embedding, f("m", "document", 8, "a"))


def test_async_many_at_once(server, fake):
    async def all_of_them():
        async with openai.AsyncOpenAI(api_key="k", base_url=server.url + "/v1") as c:
            return await asyncio.gather(*(c.embeddings.create(model="m", input=[f"t{i % 30}", "same"])
                                          for i in range(200)))
    for i, got in enumerate(asyncio.run(all_of_them())):
        assert same_bits(got.data[0].embedding, f("m", "none", 8, f"t{i % 30}"))
        assert same_bits(got.data[1].embedding, f("m", "none", 8, "same"))
    assert fake.stats()["inputs"] == 31


def test_azure_client(server):
    c = openai.AzureOpenAI(api_key="unused", api_version="2024-10-21", azure_endpoint=server.url)
    got = c.embeddings.create(model="m", input=["a", "b"])
    assert same_bits(got.data[1].embedding, f("m", "none", 8, "b"))


def test_models(server):
    c = client(server)
    assert "m" in [m.id for m in c.models.list()]
    assert c.models.retrieve("m").id == "m"
    with pytest.raises(openai.NotFoundError):
        c.models.retrieve("nope")


def test_errors_arrive_as_the_clients_own_classes(server):
    c = client(server)
    with pytest.raises(openai.NotFoundError) as e:
        c.embeddings.create(model="nope", input="a")
    assert e.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as e:
        c.embeddings.create(model="m", input=["a", ""])
    assert e.value.param == "input"
    with pytest.raises(openai.BadRequestError):
        c.embeddings.create(model="m", input=[])


def test_a_deadline_is_met_by_the_clients_own_retry(server, fake):
    """The first try ends before the client's timeout with 503; the retry finds the vector that was paid for."""
    fake.config(delay_ms=2500)
    got = client(server, timeout=2, max_retries=4).embeddings.create(model="m", input="slow")
    assert same_bits(got.data[0].embedding, f("m", "none", 8, "slow"))
    assert fake.count("slow") == 1


def test_no_retry_where_it_cannot_help(server, fake):
    fake.fault("status", status=429, body='{"error":{"message":"quota","type":"insufficient_quota","param":null,'
               '"code":"insufficient_quota"}}')
    with pytest.raises(openai.APIStatusError):
        client(server, max_retries=5).embeddings.create(model="m", input="x")
    assert server.metric("veckeep_http_requests_total") <= 3, "the client retried what cannot succeed"
    assert fake.stats()["calls"] == 1
