"""The traps that other gateways and caches fell into (their issue trackers name each), one test each and
numbered as in the project's notes on them. Method: the smallest questions that would show the fault.

Further tests of the same traps: 2.2, 2.19, 2.24 test_upstream_faults.py; 2.21 test_single_flight.py; 2.1, 2.5, 2.7,
2.8 test_fuzz_cache.py. Not testable from outside: 2.14 (a hosted model that changes silently is met by checking the
canary texts again after a day: tests/embed), 2.25 (supply chain). Decided otherwise than the trap's usual cure: 2.19, no
negative cache at all; 2.16, the truncation policy belongs to the space and the answer says what may be cut."""
import itertools
import stat

import numpy as np
import pytest

import procs
from vectors import close, cut, f, same_bits, unit
from wire import positions_of


def two_spaces(fake, **more):
    return procs.config(
        providers={"fake": procs.provider(fake, role_field="input_type")},
        spaces={"test/m@1": procs.space(("fake", "m")),
                "test/r@1": procs.space(("fake", "r"), roles=procs.ROLES)},
        models={"m": "test/m@1", "r": "test/r@1"}, **more)


def test_trap_2_1_any_mask_of_hits_and_misses_keeps_every_slot(server, fake, check):
    for n in (1, 2, 3, 4):
        for mask in itertools.product([False, True], repeat=n):
            texts = [f"{n}{mask}{i}" for i in range(n)]
            known = [t for t, hit in zip(texts, mask) if hit]
            if known:
                check(server.embed(known), known)
            before = fake.stats()["inputs"]
            got = server.embed(texts)
            check(got, texts)
            assert fake.stats()["inputs"] - before == n - len(known)
            assert (got.cache["hits"], got.cache["misses"]) == (len(known), n - len(known))
            check(server.embed(texts[::-1]), texts[::-1])


def test_trap_2_1_duplicates_in_a_batch_are_bought_once_and_fanned_out(server, fake, check):
    check(server.embed("hit"), ["hit"])
    texts = ["a", "hit", "b", "a", "a", "hit", "b"]
    check(server.embed(texts), texts)
    assert fake.stats()["by_text"] == {"hit": 1, "a": 1, "b": 1}


def test_trap_2_2_an_unordered_reply_is_put_in_order_before_it_is_kept(server, fake, check):
    fake.fault("shuffle")
    texts = [f"s{i}" for i in range(20)]
    check(server.embed(texts), texts)
    check(server.embed_cached(texts), texts)


def test_trap_2_3_no_two_questions_share_a_key(serve, fake):
    """Joins by a separator would make pairs of these equal."""
    server = serve(two_spaces(fake))
    texts = ["a", "b", "a-b", "a:b", "a,b", "a\x1fb", "a\nb", "a b", "ab", "r", "query", "query a", "query\x1fa", "none",
             "m", "8", "text", '["a","b"]', "test/m@1", "test/m@1:a", "a" * 64, "a" * 65]
    for text in texts:
        for model, role in (("m", "none"), ("r", "none"), ("r", "query"), ("r", "document")):
            more = {} if role == "none" else {"input_type": role}
            got = server.embed(text, model, **more)
            assert got.cache["misses"] == 1, (text, model, role, "was taken for something else")
            assert same_bits(got.rows()[0], f(model, role, 8, text))
    assert set(fake.counts().values()) == {1}


def token_server(serve, fake):
    return serve(procs.config(
        providers={"fake": procs.provider(fake)},
        spaces={"test/tok@1": procs.space(("fake", "tok"), tokenizer="cl100k"), "test/m@1": procs.space(("fake", "m"))},
        models={"tok": "test/tok@1", "m": "test/m@1"}))


def test_trap_2_4_a_token_array_that_is_a_text_is_that_text(serve, fake):
    encode = pytest.importorskip("tiktoken").get_encoding("cl100k_base").encode
    server = token_server(serve, fake)
    for text in ["hello world", "Grüße, 東京 😀", "  two spaces\n\nand lines", "a"]:
        got = server.embed(encode(text), "tok")
        assert same_bits(got.rows()[0], f("tok", "none", 8, text)), text
        assert server.embed(text, "tok").cache["hits"] == 1
        assert server.embed([encode(text), encode("other " + text)], "tok").cache["hits"] == 1


def test_trap_2_4_a_flat_token_array_is_one_input(serve, fake):
    ids = pytest.importorskip("tiktoken").get_encoding("cl100k_base").encode("1 2 3 4")
    server = token_server(serve, fake)
    server.embed(["1", "2", "3", str(ids)] + [str(i) for i in ids], "tok")
    got = server.embed(ids, "tok")
    assert len(got.json()["data"]) == 1
    assert same_bits(got.rows()[0], f("tok", "none", 8, "1 2 3 4"))


def test_trap_2_4_tokens_that_are_no_text_stay_tokens(serve, fake):
    """One byte of a character alone; and two tokens where the tokenizer itself would make one."""
    encode = pytest.importorskip("tiktoken").get_encoding("cl100k_base")
    server = token_server(serve, fake)
    half = encode.encode("😀")[:1]
    split = encode.encode("hel") + encode.encode("lo")
    assert encode.encode("hello") != split
    for ids in (half, split):
        got = server.embed([ids], "tok")
        assert same_bits(got.rows()[0], f("tok", "none", 8, ids)), ids
    assert same_bits(server.embed("hello", "tok").rows()[0], f("tok", "none", 8, "hello"))


def test_trap_2_4_tokens_never_go_to_a_space_of_another_tokenizer(serve, fake):
    """What spells a text is that text everywhere (LangChain sends cl100k to any model); the rest is refused."""
    encode = pytest.importorskip("tiktoken").get_encoding("cl100k_base").encode
    server = token_server(serve, fake)
    assert same_bits(server.embed(encode("hello world"), "m").rows()[0], f("m", "none", 8, "hello world"))
    calls = fake.stats()["calls"]
    half = encode("😀")[:1]
    for tokens in (half, [encode("fine"), half], encode("hel") + encode("lo"), [4_000_000_000]):
        got = server.embed(tokens, "m")
        assert got.status == 400 and "check_embedding_ctx_length" in got.error["message"], (tokens, got)
    assert fake.stats()["calls"] == calls


def test_trap_2_5_base64_is_honoured_and_is_no_part_of_the_key(server, fake, check):
    a = server.embed(["x", "y"], encoding_format="base64")
    assert all(isinstance(d["embedding"], str) for d in a.json()["data"])
    check(a, ["x", "y"])
    for format in ("float", None):
        b = server.embed(["x", "y"], **({"encoding_format": format} if format else {}))
        assert all(isinstance(d["embedding"], list) for d in b.json()["data"])
        check(b, ["x", "y"])
    raw = server.embed(["x", "y"], headers={"Accept": "application/octet-stream"})
    assert raw.headers["content-type"].startswith("application/octet-stream")
    assert all(same_bits(r, f("m", "none", 8, t)) for r, t in zip(raw.rows_raw(8), ["x", "y"]))
    assert fake.stats()["inputs"] == 2


@pytest.mark.parametrize("value", ["hex", "", "BASE64", 1, ["float"]])
def test_trap_2_5_another_encoding_is_a_400(server, value):
    got = server.embed("x", encoding_format=value)
    assert got.status == 400 and got.error["param"] == "encoding_format", got


def test_trap_2_6_a_damaged_record_is_a_miss_and_never_an_answer(server, fake, check):
    texts = [f"record {i}" for i in range(20)]
    check(server.embed(texts), texts)
    assert server.stop() == 0
    victim = f("m", "none", 8, texts[7]).tobytes()
    hit = 0
    for path in sorted(p for p in server.data.rglob("*") if p.is_file()):
        data = bytearray(path.read_bytes())
        at = data.find(victim)
        while at >= 0:
            data[at + 5] ^= 0x10
            hit += 1
            at = data.find(victim, at + 1)
        if hit:
            path.write_bytes(data)
    assert hit, "the row was not found on disk as it came"
    server.start()
    before = fake.stats()["inputs"]
    check(server.embed(texts), texts)
    assert fake.stats()["inputs"] == before + 1 and fake.count(texts[7]) == 2


def mrl(fake, dims=32, **more):
    return procs.config(spaces={"test/m@1": procs.space(("fake", "m"), dims=dims, **more)}, fake=fake)


def test_trap_2_7_smaller_dims_are_cut_from_the_native_row_and_normalised(make_fake, serve):
    fake = make_fake(dims=32)
    server = serve(mrl(fake, matryoshka=True))
    native = f("m", "none", 32, "x")
    for dims in (8, 31, 1, 16):
        got = server.embed(["x"], dimensions=dims)
        assert close(got.rows()[0], cut(native, dims)), dims
        assert dims == 1 or close(np.linalg.norm(got.rows()[0].astype(np.float64)), 1.0)
        half = server.embed(["x"], dimensions=dims, encoding_format="base64")
        assert same_bits(half.rows()[0], got.rows()[0])
    assert same_bits(server.embed("x").rows()[0], native)
    assert same_bits(server.embed("x", dimensions=32).rows()[0], native)
    assert fake.stats()["calls"] == 1 and '"dimensions"' not in fake.stats()["requests"][0]["body"]


def test_trap_2_7_dims_that_a_space_cannot_give_are_a_400(make_fake, serve, server):
    for dims in (4, 9, 0, -1, 1.5, "8", 10 ** 12):
        got = server.embed("x", dimensions=dims)
        assert got.status == 400 and got.error["param"] == "dimensions", (dims, got)
    assert server.embed("x", dimensions=8).status == 200
    big = serve(mrl(make_fake(dims=32), matryoshka=True))
    assert big.embed("x", dimensions=33).status == 400


def test_trap_2_8_query_and_document_are_two_vectors(serve, fake):
    server = serve(two_spaces(fake))
    for role in ("query", "document"):
        for _ in range(2):
            got = server.embed("same", "r", input_type=role)
            assert same_bits(got.rows()[0], f("r", role, 8, "same"))
        assert same_bits(server.embed("same", f"r#{role}").rows()[0], f("r", role, 8, "same"))
    assert same_bits(server.embed("same", "r").rows()[0], f("r", "none", 8, "same"))
    assert sorted(fake.counts()) == [("r", "document", "same"), ("r", "none", "same"), ("r", "query", "same")]
    assert set(fake.counts().values()) == {1}


def test_trap_2_8_a_space_without_roles_keys_every_role_as_none(serve, fake):
    server = serve(two_spaces(fake))
    for more in ({"input_type": "query"}, {"input_type": "document"}, {}):
        assert same_bits(server.embed("same", "m", **more).rows()[0], f("m", "none", 8, "same"))
    assert fake.stats()["calls"] == 1
    assert "input_type" not in fake.stats()["requests"][0]["body"]


def test_trap_2_8_a_prefix_belongs_to_the_space_and_not_to_the_key(serve, fake):
    """bge and e5: the role is words before the text."""
    server = serve(procs.config(fake, space_more={"roles": {"query": {"prefix": "query: "},
                                                            "document": {"prefix": "passage: "}}}))
    got = server.embed("fish", input_type="query")
    assert same_bits(got.rows()[0], f("m", "none", 8, "query: fish"))
    assert same_bits(server.embed("fish", input_type="document").rows()[0], f("m", "none", 8, "passage: fish"))
    # somebody who writes the prefix himself asks for another thing: his words, embedded as no role
    assert same_bits(server.embed("query: fish").rows()[0], f("m", "none", 8, "query: fish"))
    assert fake.stats()["inputs"] == 3


def test_trap_2_8_unknown_fields_are_a_400_that_names_them(serve, fake):
    server = serve(procs.config(fake, space_more={"pass_params": ["truncate"]}))
    got = server.embed("x", task_hint="retrieval")
    assert got.status == 400 and "task_hint" in got.error["message"], got
    assert fake.stats()["calls"] == 0
    a, b = server.embed("x", truncate="END"), server.embed("x", truncate="START")
    assert (a.status, a.cache["misses"], b.cache["misses"]) == (200, 1, 1), "a passed parameter is part of the key"
    assert server.embed("x", truncate="END").cache["hits"] == 1
    assert '"truncate":"END"' in fake.stats()["requests"][0]["body"].replace(" ", "")


SAME_LOOKING = ["US", "us", "Us", " us", "us ", "us\n", "us\r\n", "us\t", "ｕｓ", "\u00e9", "e\u0301", "ﬁ", "fi", "µ", "μ", "ß",
                "ss", "ı", "i", "I", "İ", "\u200bus", "us\u00a0", "us\u2028", "   ", " "]


def test_trap_2_9_nothing_is_folded(server, fake, check):
    check(server.embed(SAME_LOOKING), SAME_LOOKING)
    assert fake.stats()["by_text"] == {t: 1 for t in SAME_LOOKING}
    check(server.embed_cached(SAME_LOOKING), SAME_LOOKING)


@pytest.mark.parametrize("body", [b'{"model":"m","input":"\xff\xfe"}', b'{"model":"m","input":"\xed\xa0\x80"}',
                                  b'{"model":"m","input":"\\ud800"}', b'{"model":"m","input":"\\udc00x"}',
                                  b'{"model":"m","input":"a\\u0000b"}', b'{"model":"m","input":"\xc0\x80"}'])
def test_trap_2_9_what_is_no_text_is_a_400_before_it_is_hashed(server, fake, body):
    got = server.post("/v1/embeddings", body, {"Content-Type": "application/json"})
    assert got.status == 400 and got.error["message"], got
    assert fake.stats()["calls"] == 0


def test_trap_2_10_a_similar_text_is_never_served(server, fake, check):
    check(server.embed("How do I reset my password?"), ["How do I reset my password?"])
    for near in ("How do I reset my password", "how do I reset my password?", "How can I reset my password?"):
        assert server.embed_cached(near).status == 504
        check(server.embed(near), [near])


def test_trap_2_11_names_resolve_to_a_space_and_share_its_vectors(serve, make_fake, check):
    fake = make_fake("--space", "S")
    config = procs.config(fake, models={"m": "test/m@1", "prod-embed": "test/m@1"})
    server = serve(config)
    check(server.embed("x", "m"), ["x"], space="S")
    got = server.embed("x", "prod-embed")
    check(got, ["x"], space="S")
    assert fake.stats()["calls"] == 1 and got.headers["x-veckeep-space"] == "test/m@1"
    assert got.json()["model"] == "prod-embed"


def test_trap_2_11_a_name_that_moves_to_another_space_takes_no_vector_along(serve, make_fake, check):
    fake = make_fake()
    spaces = {"test/m@1": procs.space(("fake", "m")), "test/m@2": procs.space(("fake", "m2"))}
    server = serve(procs.config(fake, spaces=spaces, models={"m": "test/m@1"}))
    check(server.embed("x"), ["x"])
    assert server.stop() == 0
    server.write_config(procs.config(fake, spaces=spaces, models={"m": "test/m@2"}))
    server.start()
    check(server.embed("x"), ["x"], space="m2")
    assert server.embed("x").headers["x-veckeep-space"] == "test/m@2"


def test_trap_2_11_another_definition_under_a_spaces_name_is_an_error_at_start(serve, make_fake):
    fake = make_fake(dims=16)
    server = serve(procs.config(fake))
    assert server.embed("x").status == 200
    assert server.stop() == 0
    server.write_config(procs.config(fake, spaces={"test/m@1": procs.space(("fake", "m"), dims=8)}))
    server.spawn()
    code = server.proc.wait(20)
    server.proc = None
    assert code in (1, 2) and "test/m@1" in server.log()


def test_trap_2_12_a_provider_of_other_vectors_never_joins_the_space(serve, make_fake, check):
    a, b = make_fake("--space", "S"), make_fake("--space", "OTHER")
    server = serve(procs.config(
        providers={"a": procs.provider(a, attempts=1), "b": procs.provider(b, attempts=1)},
        spaces={"test/m@1": procs.space("a", "b")}))
    for i in range(10):
        check(server.embed(f"x{i}"), [f"x{i}"], space="S")
    a.fault("status", status=500)
    for i in range(15):
        got = server.embed(f"y{i}")
        assert got.status in (502, 503), got
    assert not [t for t in b.stats()["by_text"] if t.startswith(("x", "y"))], "the stranger was asked for a client's text"


def test_trap_2_13_no_fallback_leaves_the_space(serve, make_fake, check):
    a, b = make_fake(), make_fake()
    server = serve(procs.config(
        providers={"a": procs.provider(a, attempts=1), "b": procs.provider(b)},
        spaces={"test/a@1": procs.space(("a", "m")), "test/b@1": procs.space(("b", "m"))},
        models={"m": "test/a@1", "n": "test/b@1"}))
    check(server.embed("hit"), ["hit"])
    a.fault("rst")
    got = server.embed("miss")
    assert got.status in (502, 503) and b.stats()["calls"] == 0
    check(server.embed("hit"), ["hit"])
    procs.wait_for(lambda: server.embed("again").status == 503, 20, "the breaker")
    assert int(server.embed("again").headers["retry-after"]) >= 1


def test_trap_2_15_the_first_vector_stays(server, fake, check):
    check(server.embed("x"), ["x"])
    fake.fault("drift", value=0.001)
    fresh = server.embed("x", headers={"Cache-Control": "no-cache"})
    assert fresh.status == 200 and not same_bits(fresh.rows()[0], f("m", "none", 8, "x"))
    check(server.embed("x"), ["x"])


def test_trap_2_16_an_answer_says_what_may_have_been_cut(serve, fake):
    server = serve(procs.config(fake, space_more={"tokens_max": 8}))
    long = "a b c d e f g"  # eight tokens: at the cap, so the provider may have cut it
    for _ in range(2):
        got = server.embed(long)
        assert got.status == 200 and "x-veckeep-truncated" in got.headers, got
    assert "x-veckeep-truncated" not in server.embed("a b").headers


def test_trap_2_17_a_vector_comes_back_as_the_provider_gave_it(server):
    row = server.embed("not of unit length").rows()[0]
    assert abs(np.linalg.norm(row.astype(np.float64)) - 1) > 1e-3
    assert same_bits(row, f("m", "none", 8, "not of unit length"))
    assert not same_bits(row, unit(row))


def test_trap_2_18_an_empty_text_in_a_list_is_a_400_that_names_it(server, fake):
    got = server.embed(["a", "", "b", ""])
    assert got.status == 400 and got.error["param"] == "input", got
    assert positions_of(got.error) == [1, 3]
    assert fake.stats()["calls"] == 0


def test_trap_2_18_a_lone_empty_text_goes_to_the_provider(server, fake, check):
    check(server.embed(""), [""])
    assert fake.count("") == 1
    fake.config(reject_empty=True)
    check(server.embed(""), [""])  # a hit


def test_trap_2_18_a_refused_empty_text_is_the_providers_400(server, fake):
    fake.config(reject_empty=True)
    assert server.embed("").status == 400


def test_trap_2_19_a_failed_vector_is_never_kept(server, fake, check):
    for mode in ("zero", "nan"):
        fake.fault(mode)
        assert server.embed(["a", "b", "c"]).status == 502
        fake.clear()
        assert server.embed_cached(["a", "b", "c"]).status == 504
    check(server.embed(["a", "b", "c"]), ["a", "b", "c"])
    fake.fault("poison", match="refused")
    assert server.embed("refused").status == 400
    fake.clear()
    check(server.embed("refused"), ["refused"])


def test_trap_2_20_usage_is_logical_and_says_what_was_saved(server, fake):
    text = "four words and one"  # four words, one more: five tokens
    miss, hit = server.embed(text), server.embed(text)
    for got, cached in ((miss, 0), (hit, 5)):
        usage = got.json()["usage"]
        assert (usage["prompt_tokens"], usage["total_tokens"]) == (5, 5)
        assert usage["prompt_tokens_details"]["cached_tokens"] == cached
    assert (miss.headers["x-veckeep-tokens-billed"], miss.headers["x-veckeep-tokens-saved"]) == ("5", "0")
    assert (hit.headers["x-veckeep-tokens-billed"], hit.headers["x-veckeep-tokens-saved"]) == ("0", "5")
    both = server.embed([text, text, "new one"])
    assert both.json()["usage"]["prompt_tokens"] == 5 + 5 + 3
    assert both.headers["x-veckeep-tokens-billed"] == "3"
    assert server.metric("veckeep_embed_tokens_total", kind="billed") == 8 == fake.stats()["tokens"]
    assert server.metric("veckeep_embed_tokens_total", kind="logical") == 5 + 5 + 13
    assert server.metric("veckeep_embed_tokens_total", kind="saved") == 5 + 10


def client_pools(serve, fake):
    return serve(procs.config(fake, provider_more={"api_key": {"from": "client"}}))


def test_trap_2_22_teams_with_keys_of_their_own_share_nothing(serve, make_fake, check):
    fake = make_fake("--api-key", "team-a")
    server = client_pools(serve, fake)
    a, b = {"Authorization": "Bearer team-a"}, {"Authorization": "Bearer team-b"}
    check(server.embed("plan", headers=a), ["plan"])
    assert server.embed("plan", headers=a).cache["hits"] == 1
    # the other team's key is refused by the provider: what the first one bought must not be shown either
    got = server.embed("plan", headers=b)
    assert got.status == 401, got
    fake.config(api_key="team-b")
    got = server.embed("plan", headers=b)
    check(got, ["plan"])
    assert got.cache["misses"] == 1
    assert fake.count("plan") >= 2


def test_trap_2_23_nothing_readable_lies_on_the_disk(server):
    secret = "the merger is on Friday, tell nobody 8c1f"
    assert server.embed([secret, "x"]).status == 200
    assert server.stop() == 0
    for path in server.data.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert not mode & 0o077, f"{path} has mode {mode:o}"
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), f"{path} holds the text"
    assert not stat.S_IMODE(server.data.stat().st_mode) & 0o077
    assert secret not in server.log(10000)


def test_trap_2_24_more_inputs_than_a_call_takes_are_split(make_fake, serve, check):
    fake = make_fake("--caps-items", 96)
    server = serve(procs.config(fake, provider_more={"caps": {"items": 96}}))
    texts = [f"n{i}" for i in range(2048)]
    check(server.embed(texts), texts)
    stats = fake.stats()
    assert stats["inputs"] == 2048 and stats["calls"] <= 2048 // 96 + 8
