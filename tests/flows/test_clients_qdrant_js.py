"""@qdrant/js-client-rest, unmodified (qdrant.mjs), through every operation that it has and we serve."""
import json
import os
import pathlib
import shutil
import subprocess

import pytest

import procs

HERE = pathlib.Path(__file__).parent


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def test_the_javascript_client_works_unmodified(serve):
    if not shutil.which("node") or not (HERE / "node_modules" / "@qdrant" / "js-client-rest").is_dir():
        if os.environ.get("VECKEEP_NEED"):
            pytest.fail("node or tests/flows/node_modules is missing")
        pytest.skip("no node_modules: npm install in tests/flows")
    server = serve({})
    got = subprocess.run(["node", str(HERE / "qdrant.mjs"), server.url], capture_output=True, text=True, timeout=60,
                         env=procs.clean_env())
    assert got.returncode == 0, got.stderr
    out = json.loads(got.stdout)
    rows = {1: [0.05, 0.61, 0.76, 0.74], 2: [0.19, 0.81, 0.75, 0.11], "5c56c793-69f3-4fbf-87e6-c4bf54c28c26": [0.36, 0.55, 0.47, 0.94],
            "any string": [0.18, 0.01, 0.85, 0.8], 9: [1, 0, 0, 0]}
    question = [0.2, 0.1, 0.9, 0.7]
    best = sorted(rows, key=lambda i: -dot(rows[i], question))
    assert out["created"] is True and out["exists"] is True and out["version"].startswith("1.")
    for name in ("index", "upsert", "batch", "setPayload", "overwrite", "deletePayload", "clearPayload", "vectors", "deleted"):
        assert out[name] == "completed", name
    assert [p["id"] for p in out["query"]] == best[:3]
    assert [p["score"] for p in out["query"]] == pytest.approx([dot(rows[i], question) for i in best[:3]], abs=1e-5)
    assert [p["id"] for p in out["filtered"]] == [i for i in best if i in (1, 2)]
    assert out["batches"][1] == [9] and out["batches"][0] != [1]
    assert set(out["groups"]) == {"Berlin", "London", "Moscow"}
    assert [(p["id"], p["vector"]) for p in out["retrieve"]] == [(9, rows[9]), ("any string", pytest.approx(rows["any string"]))]
    assert out["retrieve"][0]["payload"] == {"deep": {"a": [1, {"b": "ü"}]}}
    assert [p["id"] for p in out["scroll"]["points"]] == [1, 2] and out["scroll"]["next_page_offset"] == 9
    assert out["count"] == 5
    assert {h["value"]: h["count"] for h in out["facet"]} == {"Berlin": 2, "London": 1, "Moscow": 1}
    assert out["payloads"] == {"1": {"city": "Berlin", "extra": True}, "2": {"only": 1}, "9": {}}
    assert out["batchUpdate"] == ["completed", "completed"] and out["left"] == [9]
    assert out["alias"] is True and out["aliases"] == [{"alias_name": "current", "collection_name": "js"}] and out["byAlias"] == 1
    assert out["snapshot"] == "string" and out["snapshots"] == 1
    assert out["info"]["points_count"] == 1 and out["info"]["vectors"]["size"] == 4 and out["info"]["metadata"] == {"by": "js"}
    assert out["info"]["schema"] == ["city"]
    assert out["wrongDims"]["status"] == 400 and "expected dim: 4, got 2" in out["wrongDims"]["text"]
    assert out["notFound"]["status"] == 404 and "Collection `nope` doesn't exist!" in out["notFound"]["text"]
    assert out["dropped"] is True and out["collections"] == []
