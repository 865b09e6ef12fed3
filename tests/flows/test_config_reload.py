"""A changed file is taken up, a wrong one is refused and the old one serves on; requests under way keep theirs."""
import threading

import procs
from vectors import f, same_bits


def test_a_new_model_name_appears_without_a_restart(server, fake, check):
    check(server.embed("a"), ["a"])
    assert server.embed("a", "new").status == 404
    server.write_config(procs.config(fake, models={"m": "test/m@1", "new": "test/m@1"}))
    procs.wait_for(lambda: server.embed("a", "new").status == 200, 15, "the new name")
    check(server.embed("a", "new"), ["a"])
    assert fake.count("a") == 1


def test_a_wrong_file_is_refused_and_the_old_one_serves_on(server, fake, check):
    for wrong in ("{", '{"models": {"m": "no-such-space"}}', '{"nonsense": true}', ""):
        server.write_config(wrong)
        procs.wait_for(lambda: "config.json" in server.log(200), 15, "a word about the refused file")
        check(server.embed("still"), ["still"])
        assert server.get("/readyz").status == 200
    server.write_config(procs.config(fake, models={"m": "test/m@1", "again": "test/m@1"}))
    procs.wait_for(lambda: server.embed("a", "again").status == 200, 15, "the repaired file")


def test_a_spaces_other_definition_is_refused_while_running(server, fake, check):
    check(server.embed("a"), ["a"])
    server.write_config(procs.config(fake, spaces={"test/m@1": procs.space(("fake", "m"), dims=16)},
                                     models={"m": "test/m@1", "marker": "test/m@1"}))
    procs.wait_for(lambda: "test/m@1" in server.log(200), 15, "a word about the space")
    assert server.embed("a", "marker").status == 404
    check(server.embed("b"), ["b"])


def test_a_changed_provider_is_used_for_what_comes_next(make_fake, serve, check):
    a, b = make_fake("--space", "S"), make_fake("--space", "S")
    server = serve(procs.config(a))
    check(server.embed("a"), ["a"], space="S")
    server.write_config(procs.config(b))
    n = [0]

    def moved():
        n[0] += 1
        assert server.embed(f"x{n[0]}").status in (200, 502, 503)
        return b.stats()["inputs"] > 0
    procs.wait_for(moved, 15, "the new provider")


def test_a_request_under_way_keeps_the_config_that_it_began_with(server, fake):
    fake.config(delay_ms=3000)
    got = []
    t = threading.Thread(target=lambda: got.append(server.embed("slow", client=server.client())))
    t.start()
    fake.wait_in_flight(1)
    fake.config(delay_ms=0)
    other = procs.config(fake, spaces={"test/o@1": procs.space(("fake", "o"))}, models={"other": "test/o@1"})
    server.write_config(other)
    procs.wait_for(lambda: server.embed("a", "other").status == 200, 15, "the new file")
    t.join()
    assert got[0].status == 200 and same_bits(got[0].rows()[0], f("m", "none", 8, "slow"))
    assert server.embed("slow").status == 404


def test_a_config_may_hold_comments_and_variables(serve, fake, check):
    server = serve("""{
        // a comment
        "providers": {"fake": {"dialect": "openai", "base_url": "%s/v1", "api_key": "${UPSTREAM_KEY}",
                               "labels": ["onprem"]}}, /* another */
        "spaces": {"test/m@1": {"dims": 8, "route": [{"provider": "fake", "model": "m"}],}},
        "models": {"m": "test/m@1"},
    }""" % fake.url, env={"UPSTREAM_KEY": "from-the-environment"})
    check(server.embed("a"), ["a"])
    assert fake.stats()["requests"][-1]["headers"]["authorization"] == "Bearer from-the-environment"
    assert "from-the-environment" not in server.log(1000)
