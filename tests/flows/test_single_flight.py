"""Concurrent misses of one key make one upstream call. Method: the fake is slow, many clients ask at once."""
import threading
import time

import procs
from vectors import f, same_bits


def ask_all(server, questions, timeout=60):
    """All questions at once, each on a connection of its own; their answers in order."""
    answers = [None] * len(questions)
    gate = threading.Barrier(min(len(questions), 250))

    def one(lane):
        client = server.client(timeout)
        gate.wait()
        for i in range(lane, len(questions), gate.parties):
            answers[i] = server.embed(client=client, **questions[i])
        client.close()
    threads = [threading.Thread(target=one, args=(lane,)) for lane in range(gate.parties)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return answers


def test_a_thousand_equal_misses_make_one_upstream_call(server, fake):
    fake.config(delay_ms=1500)
    answers = ask_all(server, [{"input": "the same"}] * 250)
    fake.config(delay_ms=0)
    answers += ask_all(server, [{"input": "the same"}] * 750)
    assert all(a.status == 200 and same_bits(a.rows()[0], f("m", "none", 8, "the same")) for a in answers)
    assert fake.count("the same") == 1 and fake.stats()["calls"] == 1
    assert sum(a.cache["misses"] for a in answers) == 1
    assert sum(a.cache["coalesced"] for a in answers) > 200
    assert sum(a.cache["hits"] + a.cache["coalesced"] for a in answers) == 999


def test_overlapping_batches_buy_each_text_once(server, fake):
    fake.config(delay_ms=300)
    questions = [{"input": [f"t{j % 40}" for j in range(i, i + 20)]} for i in range(40)]
    answers = ask_all(server, questions)
    for question, answer in zip(questions, answers):
        assert answer.status == 200
        for text, row in zip(question["input"], answer.rows()):
            assert same_bits(row, f("m", "none", 8, text))
        assert sum(answer.cache.values()) == 20
    assert fake.stats()["by_text"] == {f"t{i}": 1 for i in range(40)}


def test_what_queues_behind_a_running_call_goes_in_the_next_one(serve, fake):
    server = serve(procs.config(fake, provider_more={"caps": {"concurrency": 1}}))
    fake.config(delay_ms=400)
    answers = ask_all(server, [{"input": f"q{i}"} for i in range(100)])
    assert all(a.status == 200 for a in answers)
    stats = fake.stats()
    assert stats["inputs"] == 100 and stats["max_in_flight"] == 1
    assert stats["calls"] <= 6, "queued misses were not batched"


def test_a_shared_failure_reaches_all_who_wait_and_is_not_kept(server, fake):
    fake.fault("poison", match="bad", ms=300)
    answers = ask_all(server, [{"input": "bad"}] * 30)
    assert {a.status for a in answers} == {400}
    assert fake.count("bad") == 1
    fake.clear()
    assert server.embed("bad").status == 200, "a failure was stored"


def test_a_client_that_leaves_does_not_cancel_what_others_wait_for(server, fake):
    fake.config(delay_ms=1000)
    raw = server.raw()
    body = b'{"model":"m","input":"shared"}'
    raw.send(b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    fake.wait_in_flight(1)
    got = []
    other = threading.Thread(target=lambda: got.append(server.embed("shared", client=server.client())))
    other.start()
    time.sleep(0.2)
    raw.close()
    other.join()
    assert got[0].status == 200 and same_bits(got[0].rows()[0], f("m", "none", 8, "shared"))
    assert fake.stats()["calls"] == 1 and fake.stats()["gone"] == 0


def test_a_client_that_leaves_alone_still_leaves_its_vector_behind(server, fake):
    """The call was sent, so it is paid for: its answer is kept."""
    fake.config(delay_ms=500)
    raw = server.raw()
    body = b'{"model":"m","input":"left"}'
    raw.send(b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    fake.wait_in_flight(1)
    raw.close()
    procs.wait_for(lambda: fake.stats()["in_flight"] == 0, 5, "the call's end")
    procs.wait_for(lambda: server.embed_cached("left").status == 200, 5, "the paid vector in the cache")
    assert fake.stats()["calls"] == 1


def test_work_that_nobody_waits_for_is_dropped_if_it_was_not_sent(serve, fake):
    server = serve(procs.config(fake, provider_more={"caps": {"concurrency": 1}}))
    fake.config(delay_ms=1000)
    raws = []
    for text in (b"first", b"second"):
        raw = server.raw()
        body = b'{"model":"m","input":["%s","%s 2"]}' % (text, text)
        raw.send(b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s"
                 % (len(body), body))
        raws.append(raw)
        fake.wait_in_flight(1)
        time.sleep(0.1)
    raws[1].close()
    assert raws[0].read_answer().status == 200
    time.sleep(1.3)
    assert fake.count("second") == 0, "work was sent that nobody waited for"


def test_a_query_goes_before_queued_bulk_work(serve, fake):
    fake.config(delay_ms=150)
    server = serve(procs.config(fake, provider_more={"caps": {"concurrency": 2, "items": 4}}))
    bulk = threading.Thread(target=lambda: server.embed([f"bulk {i}" for i in range(120)], client=server.client()))
    bulk.start()
    fake.wait_in_flight(1)
    start = time.monotonic()
    assert server.embed("urgent", client=server.client()).status == 200
    took = time.monotonic() - start
    calls_then = fake.stats()["calls"]
    bulk.join()
    assert took < 1.0 and calls_then < 30, f"a query waited {took:.2f} s behind bulk work, {calls_then} calls"
