"""What the provider does wrong, one fault a test: what the client sees, what is retried, what is kept.
Method: the fake fails as told; statuses, attempts and times are counted on its side."""
import email.utils
import threading
import time

import pytest

import procs
from vectors import f, same_bits

T = ["one", "two", "three"]


def rejected(answer, status=502):
    assert answer.status == status, answer
    error = answer.error
    assert set(error) >= {"message", "type", "param", "code"} and error["message"]
    return error


# ---- replies that cannot be believed: 502, nothing kept ----

@pytest.mark.parametrize("mode,more", [
    ("drop", {}), ("duplicate", {}), ("wrong_count", {}), ("bad_index", {}), ("bad_index", {"value": -1}),
    ("bad_index", {"body": '"0"'}), ("bad_index", {"body": "0.5"}), ("nan", {}), ("inf", {}), ("zero", {}),
    ("null_embedding", {}), ("wrong_dims", {}), ("wrong_dims", {"value": -1}), ("mixed_dims", {}), ("html200", {}),
    ("error200", {}), ("truncate_body", {"clean": True}),
], ids=lambda v: v if isinstance(v, str) else "-".join(f"{a}={b}" for a, b in v.items()) or "plain")
@pytest.mark.parametrize("base64", [False, True], ids=["floats", "base64"])
def test_a_reply_that_cannot_be_right_is_a_502_and_nothing_is_cached(serve, fake, check, mode, more, base64):
    server = serve(procs.config(fake, provider_more={"base64": base64, "attempts": 2}))
    fake.fault(mode, **more)
    rejected(server.embed(T))
    fake.clear()
    assert server.embed_cached(T).status == 504, "a bad reply left rows in the cache"
    procs.wait_for(lambda: server.embed(T).status == 200, 40, "recovery")
    check(server.embed(T), T)


@pytest.mark.parametrize("mode", ["shuffle", "no_index", "base64_ignored", "slow_drip"])
@pytest.mark.parametrize("base64", [False, True], ids=["floats", "base64"])
def test_a_reply_that_is_odd_but_right_is_taken(serve, fake, check, mode, base64):
    server = serve(procs.config(fake, provider_more={"base64": base64}))
    fake.fault(mode, ms=1)
    check(server.embed(T), T)
    check(server.embed_cached(T), T)


# ---- retries ----

@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_a_passing_failure_is_retried(server, fake, check, status):
    fake.fault("status", status=status, times=1, headers={"retry-after-ms": "10"})
    check(server.embed("x"), ["x"])
    assert fake.stats()["calls"] == 2


@pytest.mark.parametrize("mode,more", [("rst", {}), ("truncate_body", {}), ("hang", {"ms": 50})])
def test_a_broken_connection_is_retried(server, fake, check, mode, more):
    fake.fault(mode, times=1, **more)
    check(server.embed("x"), ["x"])
    assert fake.stats()["calls"] == 2


def test_a_connection_closed_while_idle_costs_no_error(server, fake, check):
    fake.fault("close_idle")
    for i in range(10):
        check(server.embed(f"x{i}"), [f"x{i}"])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_lasting_refusal_is_not_retried(server, fake, status):
    fake.fault("status", status=status)
    got = server.embed("x")
    assert got.status >= 400
    # a secret may be read again once after a 401
    assert fake.stats()["calls"] <= (2 if status == 401 else 1)


def after_date(seconds):
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize("headers,least_s,most_s", [
    (lambda: {"retry-after": "1"}, 0.9, 4), (lambda: {"retry-after": "0.6"}, 0.55, 3),
    (lambda: {"retry-after-ms": "700"}, 0.65, 3), (lambda: {"retry-after": after_date(2)}, 0.9, 5),
    (lambda: {"retry-after-ms": "300", "retry-after": "20"}, 0.25, 4),
], ids=["seconds", "fraction", "milliseconds", "date", "ms-before-seconds"])
def test_retry_after_is_waited_for_in_every_form(server, fake, headers, least_s, most_s):
    fake.fault("status", status=429, times=1, headers=headers())
    start = time.monotonic()
    assert server.embed("x").status == 200
    took = time.monotonic() - start
    assert least_s <= took <= most_s, took


def test_a_retry_after_beyond_reason_is_not_waited_for(server, fake):
    fake.fault("status", status=429, headers={"retry-after": "3600"})
    start = time.monotonic()
    got = server.embed("x")
    assert time.monotonic() - start < 20 and got.status in (429, 503)
    assert fake.stats()["calls"] == 1
    assert int(got.headers["retry-after"]) >= 1


@pytest.mark.parametrize("said", ["false"])
def test_x_should_retry_is_obeyed(server, fake, said):
    fake.fault("status", status=503, headers={"x-should-retry": said})
    assert server.embed("x").status >= 500
    assert fake.stats()["calls"] == 1


@pytest.mark.parametrize("code", ["insufficient_quota", "credit_balance_exhausted",
                                  "organization_spend_limit_exceeded"])
def test_a_429_about_money_is_never_retried(server, fake, code):
    fake.fault("status", status=429, body='{"error":{"message":"You exceeded your current quota","type":"%s",'
               '"param":null,"code":"%s"}}' % (code, code))
    got = server.embed("x")
    assert got.status in (402, 429, 502, 503), got
    assert got.headers.get("x-should-retry") == "false"
    assert fake.stats()["calls"] == 1
    # and the next question does not knock again: the breaker is open
    server.embed("y")
    assert fake.stats()["calls"] == 1


def test_attempts_end(serve, fake):
    server = serve(procs.config(fake, provider_more={"attempts": 3}))
    fake.fault("status", status=500, headers={"retry-after-ms": "5"})
    error = rejected(server.embed("x"), 502)
    assert fake.stats()["calls"] == 3 and "fake was asked to fail" in error["message"]


# ---- breaker ----

def test_the_breaker_opens_and_half_opens(serve, fake, check):
    server = serve(procs.config(fake, provider_more={"attempts": 1}))
    fake.fault("status", status=500)
    statuses = [server.embed(f"x{i}").status for i in range(30)]
    calls = fake.stats()["calls"]
    assert calls < 30, "thirty failures in a row all went upstream"
    assert statuses[-1] == 503
    got = server.embed("y")
    assert got.status == 503 and int(got.headers["retry-after"]) >= 1
    fake.clear()
    procs.wait_for(lambda: server.embed("z").status == 200, 60, "a probe that closes the breaker")
    check(server.embed(["p", "q"]), ["p", "q"])


def test_hits_are_served_while_the_provider_is_down(server, fake, check):
    check(server.embed(T), T)
    fake.fault("rst")
    check(server.embed(T), T)
    assert server.embed(T + ["new"]).status in (502, 503)
    check(server.embed(T), T)


def test_a_second_provider_of_the_space_takes_over(make_fake, serve, check):
    a, b = make_fake("--space", "S"), make_fake("--space", "S")
    server = serve(procs.config(
        providers={"a": procs.provider(a, attempts=2), "b": procs.provider(b)},
        spaces={"test/m@1": procs.space(("a", "m"), ("b", "other-name"))}))
    check(server.embed("first"), ["first"], space="S")
    procs.wait_for(lambda: server.embed(f"warm {time.monotonic_ns()}").status == 200, 10, "an answer")
    a.fault("status", status=500, headers={"retry-after-ms": "5"})
    procs.wait_for(lambda: server.embed("second").status == 200, 30, "the failover")
    check(server.embed("second"), ["second"], space="S")
    assert b.count("second") >= 1
    assert server.embed("third").headers["x-veckeep-provider"] == "b"


# ---- deadlines ----

def test_the_clients_own_timeout_is_kept_and_the_work_goes_on(server, fake, check):
    fake.config(delay_ms=2500)
    start = time.monotonic()
    got = server.embed("slow", headers={"x-stainless-read-timeout": "2"})
    took = time.monotonic() - start
    assert got.status == 503 and 1.0 < took < 2.0, (took, got)
    assert int(got.headers["retry-after"]) >= 1
    procs.wait_for(lambda: server.embed_cached("slow").status == 200, 5, "the vector that was paid for")
    assert fake.count("slow") == 1


def test_at_the_deadline_finished_chunks_are_kept(serve, fake):
    server = serve(procs.config(fake, provider_more={"caps": {"items": 2, "concurrency": 1}}))
    fake.config(delay_ms=700)
    texts = [f"c{i}" for i in range(8)]
    got = server.embed(texts, headers={"x-stainless-read-timeout": "2.5"})
    assert got.status == 503
    kept = sum(server.embed_cached(t).status == 200 for t in texts)
    assert kept >= 2
    fake.config(delay_ms=0)
    again = server.embed(texts)
    assert again.status == 200 and again.cache["hits"] >= kept
    assert all(same_bits(r, f("m", "none", 8, t)) for r, t in zip(again.rows(), texts))
    assert all(n == 1 for n in fake.stats()["by_text"].values()), "a chunk was bought twice"


def test_an_attempt_that_stalls_is_given_up(serve, fake, check):
    server = serve(procs.config(fake, provider_more={"timeout": 0.5}))
    for mode in ("hang", "stall_headers"):
        fake.fault(mode, times=1)
        start = time.monotonic()
        check(server.embed(mode), [mode])
        assert time.monotonic() - start < 10


# ---- safety ----

def test_a_reply_beyond_the_cap_is_cut_off(serve, fake):
    server = serve(procs.config(fake, provider_more={"reply_bytes_max": 1 << 20, "attempts": 1}))
    fake.fault("huge", bytes=64 << 20)
    rejected(server.embed("x"), 502)


def test_redirects_are_not_followed_and_the_key_stays_home(make_fake, serve):
    thief, fake = make_fake(), make_fake("--api-key", "upstream-secret")
    server = serve(procs.config(fake, provider_more={"api_key": "upstream-secret"}))
    fake.fault("redirect", location=thief.url + "/v1/embeddings")
    for status in (301, 302, 307, 308):
        fake.clear()
        fake.fault("redirect", status=status, location=thief.url + "/v1/embeddings")
        assert server.embed(f"x{status}").status in (502, 503)
    assert thief.stats()["connections"] <= 1 and thief.stats()["calls"] == 0
    assert "upstream-secret" not in server.log(1000)


def test_the_providers_words_reach_the_client_without_its_secrets(make_fake, serve):
    fake = make_fake("--api-key", "right-key-not-for-you")
    server = serve(procs.config(fake, provider_more={"api_key": "wrong-key-not-for-you"}))
    got = server.embed("x")
    assert got.status in (401, 500, 502, 503)
    assert "not-for-you" not in got.body.decode() and "not-for-you" not in server.log(1000)
    # a failing provider key is not the client's fault: no client shall throw its own key away
    assert got.status != 401


def test_extra_headers_and_body_are_sent_and_the_clients_own_are_not(serve, fake):
    server = serve(procs.config(fake, provider_more={"headers": ["X-Org: acme"], "api_key": "k1",
                                                     "extra_body": {"truncate": True}}))
    server.embed("x", headers={"X-Private": "mine", "Authorization": "Bearer client-key", "Cookie": "c=1"}, user="u")
    seen = fake.stats()["requests"][-1]
    assert seen["headers"]["x-org"] == "acme" and seen["headers"]["authorization"] == "Bearer k1"
    assert not {"x-private", "cookie"} & set(seen["headers"])
    assert '"truncate":true' in seen["body"].replace(" ", "")


def test_nothing_but_known_keys_goes_upstream(make_fake, serve, check):
    fake = make_fake("--strict")
    server = serve(procs.config(fake))
    check(server.embed("x", encoding_format="base64", user="me"), ["x"])
    check(server.embed("y"), ["y"])


# ---- splitting ----

@pytest.mark.parametrize("caps", [{"items": 4}, {"tokens": 30}, {"bytes": 400}], ids=lambda c: next(iter(c)))
def test_a_batch_is_split_to_the_providers_caps(make_fake, serve, check, caps):
    fake = make_fake(*(x for k, v in caps.items() for x in (f"--caps-{k}", v)))
    server = serve(procs.config(fake, provider_more={"caps": caps}))
    texts = [f"text number {i}" for i in range(25)]
    check(server.embed(texts), texts)
    assert fake.stats()["inputs"] == 25, "a split batch was bought twice"


@pytest.mark.parametrize("cap", ["items", "tokens", "bytes"])
def test_caps_that_nobody_told_are_found_by_halving(make_fake, serve, check, cap):
    fake = make_fake(f"--caps-{cap}", {"items": 3, "tokens": 14, "bytes": 220}[cap])
    server = serve(procs.config(fake))
    texts = [f"text number {i}" for i in range(16)]
    check(server.embed(texts), texts)


def test_one_refused_text_does_not_cost_the_others(server, fake):
    fake.fault("poison", match="POISON")
    texts = [f"t{i}" for i in range(7)] + ["POISON"] + [f"u{i}" for i in range(8)]
    error = rejected(server.embed(texts), 400)
    assert "7" in error["message"], "the error does not name the position"
    others = texts[:7] + texts[8:]
    # The error does not wait for the halves that are under way; asked for now, their texts would be coalesced, not hits.
    procs.wait_for(lambda: fake.stats()["in_flight"] == 0, 5, "the other halves")
    calls = fake.stats()["calls"]
    got = server.embed(others)
    assert got.status == 200 and got.cache["hits"] >= len(others) - 2
    assert fake.stats()["calls"] == calls
    assert all(same_bits(r, f("m", "none", 8, t)) for r, t in zip(got.rows(), others))


def test_concurrency_towards_a_provider_is_bounded(serve, fake):
    server = serve(procs.config(fake, provider_more={"caps": {"concurrency": 3, "items": 1}}))
    fake.config(delay_ms=30)
    threads = [threading.Thread(target=lambda i=i: server.embed([f"x{i}", f"y{i}"], client=server.client()))
               for i in range(30)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert fake.stats()["max_in_flight"] == 3


def test_a_secret_file_is_read_again_after_a_401(make_fake, serve, check, tmp_path):
    fake = make_fake("--api-key", "old")
    secret = tmp_path / "secret"
    secret.write_text("old\n")
    secret.chmod(0o600)
    server = serve(procs.config(fake, provider_more={"api_key": {"file": str(secret)}}))
    check(server.embed("a"), ["a"])
    secret.write_text("new\n")
    fake.config(api_key="new")
    check(server.embed("b"), ["b"])
