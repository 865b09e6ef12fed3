"""veckeep import, search and collections: the tour of the README with the fake provider in the model's place, and what happens when it
is interrupted, asked for nonsense, or run twice."""
import json

import pytest

import procs
from vectors import f, unit

TEXTS = [f"passage number {i}" for i in range(300)]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": t, "page": i % 7}) + "\n" for i, t in enumerate(TEXTS)))
    return path


def run(server, *args, code=0):
    got = server.cli(*args, timeout=120)
    assert got.returncode == code, (args, got.stdout, got.stderr)
    return got


def count(server, name="docs"):
    return server.post(f"/collections/{name}/points/count", {"exact": True}).json()["result"]["count"]


def test_import_makes_the_collection_and_search_finds(server, fake, corpus):
    got = run(server, "import", corpus, "-c", "docs", "-m", "m", "--batch", "50")
    assert "300 lines" in got.stderr and "300 points into docs (new)" in got.stderr
    assert count(server) == 300 and fake.stats()["by_text"] == {t: 1 for t in TEXTS}
    info = server.get("/v1/collections/docs").json()
    assert info["vectors"][""]["space"] == "test/m@1" and info["text_from"] == "text"
    got = json.loads(run(server, "search", "docs", "what", "is", "it?", "--limit", "3", "--json").stdout)["result"]["points"]
    question = unit(f("m", "none", 8, "what is it?"))
    best = sorted(range(300), key=lambda i: -float(unit(f("m", "none", 8, TEXTS[i])) @ question))
    assert [p["id"] for p in got] == best[:3]
    assert got[0]["payload"] == {"id": best[0], "text": TEXTS[best[0]], "page": best[0] % 7} or got[0]["payload"]["text"] == TEXTS[best[0]]
    table = run(server, "search", "docs", "what is it?", "-n", "2").stdout
    assert TEXTS[best[0]] in table and TEXTS[best[2]] not in table
    only = json.loads(run(server, "search", "docs", "what is it?", "--json", "--filter",
                          '{"must": [{"key": "page", "match": {"value": 3}}]}').stdout)["result"]["points"]
    assert [p["id"] for p in only] == [i for i in best if i % 7 == 3][:5]


def test_a_dry_run_says_what_it_would_cost_and_does_nothing(server, fake, corpus):
    got = run(server, "import", corpus, "-c", "docs", "-m", "m", "--dry-run")
    assert "300 lines" in got.stderr and "tokens" in got.stderr
    assert server.get("/collections/docs").status == 404 and fake.stats()["calls"] == 0


def test_an_interrupted_import_goes_on_where_it_stopped(server, fake, corpus):
    fake.fault("status", status=400, after=4)
    got = server.cli("import", corpus, "-c", "docs", "-m", "m", "--batch", "20", "--parallel", "1", "--retries", "0", timeout=120)
    fake.clear()
    done = count(server)
    assert got.returncode == 1 and 0 < done < 300 and "run it again" in got.stderr
    got = run(server, "import", corpus, "-c", "docs", "-m", "m", "--batch", "20")
    assert count(server) == 300
    assert "still to do" in got.stderr and f"{300 - done} points" in got.stderr
    assert all(fake.count(t) == 1 for t in TEXTS[:done])
    assert not list(corpus.parent.glob("*.veckeep-import"))


def test_importing_again_buys_nothing_and_adds_nothing(server, fake, tmp_path):
    path = tmp_path / "no-ids.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS[:40]))
    for _ in range(2):
        run(server, "import", path, "-c", "docs", "-m", "m")
        assert count(server) == 40
    assert fake.stats()["inputs"] == 40


def test_lines_with_vectors_and_payload_objects(server, tmp_path):
    path = tmp_path / "v.jsonl"
    path.write_text('{"id": "a-string", "vector": [1,2,3,4,5,6,7,8], "payload": {"k": 1}}\n\n{"key": 5, "body": "hello", "payload": {"z": null}}\n')
    run(server, "import", path, "-c", "docs", "-m", "m", "--text-field", "body", "--id-field", "key", code=0)
    assert count(server) == 2
    assert server.get("/collections/docs/points/5").json()["result"]["payload"] == {"z": None, "body": "hello"}


def test_what_is_wrong_is_said_with_its_line(server, tmp_path):
    path = tmp_path / "bad.jsonl"
    for text, words in (('{"text": "a"}\n{"text": \n', "line 2"), ('{"text": "a"}\n[1]\n', "line 2: not an object"),
                        ('{"nothing": 1}\n', "line 1: no text"), ('{"text": "a", "id": [1]}\n', "line 1: the id")):
        path.write_text(text)
        got = run(server, "import", path, "-c", "bad", "-m", "m", code=1)
        assert words in got.stderr
    assert "no model" in run(server, "import", path, "-c", "bad", "-m", "nosuch", code=1).stderr
    assert "--collection" in run(server, "import", path, code=2).stderr
    assert "bad.jsonl" not in server.get("/collections").body.decode()


def test_collections_are_listed_shown_and_dropped(server, corpus):
    run(server, "import", corpus, "-c", "docs", "-m", "m")
    assert "docs" in run(server, "collections").stdout and "300" in run(server, "collections").stdout
    shown = run(server, "collections", "docs").stdout
    assert "8 Cosine" in shown
    assert json.loads(run(server, "collections", "--json").stdout)["result"]["collections"] == [{"name": "docs"}]
    assert "--yes" in run(server, "collections", "drop", "docs", code=2).stderr
    run(server, "collections", "drop", "--yes", "docs")
    run(server, "collections", "drop", "--yes", "docs", code=1)
    assert "doesn't exist" in run(server, "search", "docs", "x", code=1).stderr
