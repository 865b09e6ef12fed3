"""An index is derived: whatever happens to it, answers stay right. Goal: after kill -9 at any moment (of a bulk build, while it follows
writes, while it is saved), after damage to its file in every part, after recovery from a snapshot or a backup, the server starts, answers
are right at once, the collection turns green again, and no file of an index is left that nothing points to.
Method: seeded writers know what is there; search by a point's own row must find that point and none that was deleted; kills come at random
moments and at moments that are looked for. VECKEEP_SEED replays, VECKEEP_KILLS sets the rounds."""
import http.client
import os
import random
import re
import shutil
import threading
import time

import numpy as np
import pytest

from indexed import OFF, SMALL, check_scores, clustered, create, gen_files, ids, index, point, put, recall, search, status, wait, wait_green
from qdrant_http import ask
from seeds import SEED

ROUNDS = int(os.environ.get("VECKEEP_KILLS", "6"))
SLOW = {"hnsw_config": {"full_scan_threshold": 10, "m": 64, "ef_construct": 800}}  # a build of seconds


@pytest.fixture
def rng():
    return np.random.default_rng(SEED)


def check_answers(server, rows, there, rng, n=25, finds=True):
    """there: id -> row number. Points find themselves (not surely while a damaged index is not found out yet: finds=False); nobody who is
    gone is found; scores are exact; answers are whole."""
    some = list(there)
    for id in rng.choice(some, min(n, len(some)), replace=False):
        row = rows[there[int(id)]]
        found = search(server, row, 10, params={"hnsw_ef": 256})
        assert len(found) == min(10, len(there)) and (int(id) in ids(found) or not finds), (int(id), found[:2])
        assert all(p["id"] in there for p in found), [p["id"] for p in found if p["id"] not in there]
        check_scores(server, row, found)


def check_files(server, n):
    assert len(gen_files(server)) == n, gen_files(server)
    assert not [p for p in (server.data / "collections").glob("*/*") if p.name.endswith((".part", ".tmp", ".new"))]


def check_level(server, there):
    i = index(server)
    assert i["rows"] == i["rows_total"] == len(there) and i["pending"] == 0 and i["serving"], i


def bulk(server, rows, name="c", **more):
    """Built at one go, so that its file stands for all of it."""
    create(server, name, **{**SMALL, "optimizers_config": OFF, **more})
    put(server, name, [point(i, rows[i]) for i in range(len(rows))])
    ask(server, "PATCH", f"/collections/{name}", {"optimizers_config": {"indexing_threshold": 10}})


def test_a_build_that_is_killed_is_gone_on_with_or_begun_anew(serve, rng):
    server = serve({"providers": {}})
    rows = clustered(rng, 8000)
    there = {i: i for i in range(8000)}
    bulk(server, rows, **SLOW)
    pick = random.Random(SEED)
    for _ in range(3):
        wait(lambda: index(server)["progress"], 20, "a build")
        time.sleep(pick.uniform(0, 0.8))
        server.kill()
        server.start()
        assert status(server) in ("yellow", "green")
        check_answers(server, rows, there, rng, 5)
    wait_green(server)
    check_level(server, there)
    check_files(server, 1)
    check_answers(server, rows, there, rng)
    assert recall(server, rows[:30], check=False) >= 0.9


class Writer(threading.Thread):
    """Upserts and deletes; knows what every acknowledged request left, and what the one in flight may leave."""

    def __init__(self, server, rows, there, seed):
        super().__init__(daemon=True)
        self.server, self.rows, self.there, self.rng = server, rows, dict(there), random.Random(seed)
        self.maybe, self.acknowledged, self.wrong = None, 0, []

    def run(self):
        client = self.server.client(20)
        while True:
            after = dict(self.there)
            if self.rng.random() < 0.3 and len(after) > 500:
                gone = self.rng.sample(list(after), 40)
                for id in gone:
                    del after[id]
                method, path, body = "POST", "/collections/c/points/delete", {"points": gone}
            else:
                put_ = {self.rng.randrange(6000): self.rng.randrange(len(self.rows)) for _ in range(self.rng.choice([1, 20, 150]))}
                after.update(put_)
                method, path, body = "PUT", "/collections/c/points", {"points": [point(id, self.rows[n]) for id, n in put_.items()]}
            self.maybe = after
            try:
                got = client.request(method, path + "?wait=true", body, self.server.headers())
            except (OSError, http.client.HTTPException):
                return
            if got.status != 200:
                self.wrong.append(got)
                return
            self.there, self.maybe = after, None
            self.acknowledged += 1


def everything(server, rows):
    """id -> row number, by what the points carry."""
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T
    out, offset = {}, None
    while True:
        body = {"limit": 5000, "with_vector": True, **({"offset": offset} if offset is not None else {})}
        page = ask(server, "POST", "/collections/c/points/scroll", body)["result"]
        near = np.array([p["vector"] for p in page["points"]], dtype=np.float32) @ unit
        assert near.max(axis=1).min() > 0.99999, "a row that nobody wrote"
        out.update({p["id"]: int(i) for p, i in zip(page["points"], near.argmax(axis=1))})
        offset = page["next_page_offset"]
        if offset is None:
            return out


def test_an_index_that_follows_writes_survives_kills(serve, rng):
    server = serve({"providers": {}})
    rows = clustered(rng, 9000)
    there = {i: i for i in range(3000)}
    create(server, **SMALL)
    put(server, "c", [point(i, rows[i]) for i in there])
    wait_green(server)
    pick, total, behind = random.Random(SEED), 0, 0
    for n in range(ROUNDS):
        writer = Writer(server, rows, there, pick.random())
        writer.start()
        if n % 2:  # while it is saved: a file appears, or the old one is still there
            before = gen_files(server)
            end = time.monotonic() + 6
            while gen_files(server) == before and time.monotonic() < end:
                time.sleep(0.001)
        else:
            time.sleep(pick.uniform(0.2, 1.5))
        server.kill()
        writer.join(30)
        assert not writer.is_alive() and not writer.wrong, writer.wrong
        server.start()
        behind += index(server)["pending"] > 0
        got = everything(server, rows)
        assert got in (writer.there, writer.maybe), f"round {n}: {len(got)} points, {len(writer.there)} acknowledged"
        there, total = got, total + writer.acknowledged
        check_answers(server, rows, there, rng, 10)
        wait_green(server)
        check_level(server, there)
        check_answers(server, rows, there, rng, 10)
        check_files(server, 1)
    print(f"{total} requests acknowledged in {ROUNDS} rounds, {behind} starts were behind")
    assert total > 3 * ROUNDS and behind
    assert recall(server, rows[:30], check=False) >= 0.9


def sections(size):
    """Where to hurt a file: its head and all over the rest. (Its very last bytes are padding that nobody reads.)"""
    return [0, 9, 64, 200, *(size * k // 8 for k in range(1, 8))]


def hurt(path, how, at):
    size = path.stat().st_size
    if how == "gone":
        path.unlink()
    elif how == "short":
        os.truncate(path, max(0, at))
    else:
        with open(path, "r+b") as f:
            f.seek(min(at, size - 1))
            byte = f.read(1)
            f.seek(min(at, size - 1))
            f.write(bytes([byte[0] ^ 0x41]))


def test_a_damaged_file_is_named_and_built_anew_while_answers_stay_right(serve, rng):
    server = serve({"providers": {}})
    rows = clustered(rng, 3000)
    there = {i: i for i in range(3000)}
    bulk(server, rows)
    wait_green(server)
    size = gen_files(server)[0].stat().st_size
    cases = [("gone", 0), ("short", 0), ("short", 100), ("short", size // 2), ("short", size - 1), *(("flip", at) for at in sections(size))]
    for how, at in cases:
        assert server.stop() == 0
        path, = gen_files(server)
        hurt(path, how, at)
        said = server.log_path.stat().st_size
        server.start()
        check_answers(server, rows, there, rng, 3, finds=False)
        wait(lambda: path.name in server.log_path.read_text()[said:], 20, f"{how} at {at} of {size} to be noticed: {server.log(5)}")
        wait_green(server)
        wait(lambda: gen_files(server) != [path] and len(gen_files(server)) == 1, 20, f"a new file after {how} at {at}")
        line = next(x for x in server.log_path.read_text()[said:].splitlines() if path.name in x)
        assert '"warn"' in line or '"error"' in line, line
        check_level(server, there)
        check_answers(server, rows, there, rng, 3)


def test_files_that_nothing_points_to_are_cleared_away(serve, rng):
    server = serve({"providers": {}})
    rows = clustered(rng, 2000)
    bulk(server, rows)
    wait_green(server)
    assert server.stop() == 0
    path, = gen_files(server)
    for name in ("gen-1-999.graph", "gen-77-1.faiss", path.name + ".part", "gen-1-3.graph.part"):
        shutil.copy(path, path.with_name(name))
    server.start()
    assert index(server)["serving"] and gen_files(server) == [path]  # a collection is opened by its first request
    assert recall(server, rows[:5]) >= 0.9


def test_snapshots_and_backups_hold_rows_and_indexes_are_built_from_them(serve, rng, tmp_path):
    server = serve({"providers": {}})
    rows = clustered(rng, 3000)
    there = {i: i for i in range(3000)}
    create(server, **SMALL, metadata={"veckeep": {"index": {"recall": 0.9, "profile": "s8"}}})
    put(server, "c", [point(i, rows[i]) for i in there])
    wait_green(server)
    graph, = gen_files(server)
    name = ask(server, "POST", "/collections/c/snapshots?wait=true")["result"]["name"]
    got = server.post("/v1/backup", {"dir": str(tmp_path / "copy")})
    assert got.status == 200, got
    where = (server.data / "snapshots" / "c" / name).resolve().as_uri()
    ask(server, "PUT", "/collections/d/snapshots/recover?wait=true", {"location": where})
    ask(server, "POST", "/collections/c/points/delete?wait=true", {"points": list(range(1500))})
    ask(server, "PUT", "/collections/c/snapshots/recover?wait=true", {"location": where})  # over the one that is indexed
    for c in ("c", "d"):
        wait_green(server, c)
        shown = index(server, c)
        assert shown["serving"] and shown["rows"] == 3000 and shown["recall"]["target"] == 0.9 and "s8" in shown["detail"]
        assert recall(server, rows[:10], name=c) >= 0.85
    assert len(gen_files(server)) == 2
    ask(server, "DELETE", "/collections/d")
    wait(lambda: len(gen_files(server)) == 1, 20, "the dropped collection's files to go")
    other = serve({"providers": {}}, start=False)
    done = server.cli("restore", tmp_path / "copy", "--data-dir", other.data)
    assert done.returncode == 0, done
    other.start()
    wait_green(other)
    check_level(other, there)
    check_answers(other, rows, there, rng)
    check_files(other, 1)


def test_a_start_is_quick_and_serves_from_the_file(serve, rng):
    server = serve({"providers": {}})
    rows = clustered(rng, 6000)
    bulk(server, rows)
    wait_green(server)
    path = gen_files(server)
    server.restart()
    shown = index(server)
    assert shown["serving"] and shown["rows"] == 6000 and gen_files(server) == path, "it was built anew"
    assert recall(server, rows[:10]) >= 0.9
    assert not re.search(r"anew|damaged", server.log())
    wait_green(server)
    ask(server, "DELETE", "/collections/c")
    wait(lambda: not gen_files(server), 20, "the files to go with the collection")
