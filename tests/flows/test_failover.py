"""Failover inside a space, and what a search for refused inputs may cost.

Method: two fake providers of the same vectors behind one space; the first one is made to fail. Oracle: f(text),
and the providers' own counts."""
import procs


def two(serve, make_fake, **first):
    a, b = make_fake("--space", "S"), make_fake("--space", "S")
    server = serve(procs.config(
        providers={"a": procs.provider(a, attempts=2, **first), "b": procs.provider(b, attempts=2)},
        spaces={"test/m@1": procs.space("a", "b")}))
    return a, b, server


def canaries(server):
    return [hop["canary"] for hop in next(s for s in server.get("/v1/spaces").json()["data"] if s["id"] == "test/m@1")["route"]]


def test_a_fallback_is_found_ready_at_the_first_failure(serve, make_fake, check):
    a, b, server = two(serve, make_fake)
    check(server.embed("warm"), ["warm"], space="S")
    # The first use has the first provider define the space; the next ones have the second prove itself.
    i = 0

    def proven():
        nonlocal i
        i += 1
        check(server.embed(f"w{i}"), [f"w{i}"], space="S")
        return canaries(server) == ["ok", "ok"]
    procs.wait_for(proven, 10, "both canaries")
    a.fault("status", status=503)
    got = server.embed("moved")
    check(got, ["moved"], space="S")
    assert got.headers["x-veckeep-provider"] == "b"
    assert server.embed_cached("warm").status == 200


def test_a_first_provider_that_comes_back_serves_again(serve, make_fake, check):
    a, b, server = two(serve, make_fake)
    check(server.embed("one"), ["one"], space="S")
    procs.wait_for(lambda: server.embed("again").status == 200 and canaries(server)[0] == "ok", 10, "the reference")
    a.fault("rst", times=1)
    check(server.embed("two"), ["two"], space="S")
    check(server.embed("three"), ["three"], space="S")


def test_a_provider_that_refuses_everything_is_not_asked_once_a_text(serve, fake):
    server = serve(procs.config(fake))
    fake.fault("status", status=400)
    got = server.embed([f"t{i}" for i in range(1024)])
    assert got.status == 400, got
    fake.clear()
    # What was still in the air when the first refusal was answered ends by itself.
    procs.wait_for(lambda: server.embed([f"t{i}" for i in range(1024)]).status == 200, 10, "calm")
    assert fake.stats()["calls"] <= 150, fake.stats()["calls"]
