"""kill -9 at any moment. Goal: what was acknowledged is there, both environments open without repair.
Method: client threads embed new texts while the server is killed 5 to 500 ms after it was ready; then it
starts on the same directory and every text of an acknowledged answer must be a hit with the right vector."""
import http.client
import os
import random
import threading
import time

import procs
from seeds import SEED
from vectors import f, same_bits

ROUNDS = int(os.environ.get("VECKEEP_KILLS", "100"))
THREADS = 4


class Writer(threading.Thread):
    def __init__(self, server, name, rng):
        super().__init__(daemon=True)
        self.client, self.server, self.name_, self.rng = server.client(10), server, name, rng
        self.acknowledged, self.wrong = [], []

    def run(self):
        i = 0
        while True:
            texts = [f"{self.name_}-{i}-{j}" for j in range(self.rng.choice([1, 1, 3, 16]))]
            i += 1
            try:
                got = self.server.embed(texts, client=self.client)
                rows = got.rows() if got.status == 200 else None
            except (OSError, ValueError, http.client.HTTPException):
                return  # the server is gone
            if rows is None:
                if got.status != 503:
                    self.wrong.append(got)
                continue
            self.acknowledged += texts
            self.wrong += [t for t, r in zip(texts, rows) if not same_bits(r, f("m", "none", 8, t))]


def all_there(server, texts):
    missing = []
    for at in range(0, len(texts), 200):
        part = texts[at:at + 200]
        got = server.embed_cached(part)
        if got.status == 504:
            missing += [t for t in part if server.embed_cached(t).status != 200]
            continue
        assert got.status == 200, got
        for t, row in zip(part, got.rows()):
            assert same_bits(row, f("m", "none", 8, t)), f"{t} came back wrong"
    return missing


def test_whatever_was_acknowledged_survives_a_kill(serve, fake):
    rng = random.Random(SEED)
    server = serve(procs.config(fake), start=False)
    old, total = [], 0
    for round_number in range(ROUNDS):
        server.start()
        assert server.get("/readyz").status == 200
        writers = [Writer(server, f"k{round_number}-{i}", random.Random(rng.random())) for i in range(THREADS)]
        for w in writers:
            w.start()
        time.sleep(rng.uniform(0.005, 0.5))
        server.kill()
        for w in writers:
            w.join(15)
            assert not w.is_alive() and not w.wrong, w.wrong[:3]
        fresh = [t for w in writers for t in w.acknowledged]
        total += len(fresh)
        server.start()
        assert server.get("/readyz").status == 200
        sample = rng.sample(old, min(len(old), 200))
        missing = all_there(server, fresh + sample)
        assert not missing, f"round {round_number}: {len(missing)} of {len(fresh)} lost, e.g. {missing[:3]}"
        old += fresh
        # every other time the next round's kill hits a directory that was closed in order
        assert server.stop() == 0 if rng.random() < 0.5 else server.kill() is not None
    assert total > ROUNDS, f"hardly anything was acknowledged in {ROUNDS} rounds: {total}"
    server.start()
    assert not all_there(server, old), "something was lost in the end"
    print(f"{ROUNDS} kills, {total} acknowledged texts")
