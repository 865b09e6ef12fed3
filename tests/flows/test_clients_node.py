"""Clients for Node, unmodified (clients.mjs): openai, its Azure form, @langchain/openai, ollama."""
import base64
import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

import procs
from vectors import f, same_bits

HERE = pathlib.Path(__file__).parent


def test_node_clients_get_every_vector_right(server):
    if not shutil.which("node") or not (HERE / "node_modules" / "openai").is_dir():
        if os.environ.get("VECKEEP_NEED"):
            pytest.fail("node or tests/flows/node_modules is missing")
        pytest.skip("no node_modules: npm install in tests/flows")
    got = subprocess.run(["node", str(HERE / "clients.mjs"), server.url], capture_output=True, text=True, timeout=60,
                         env=procs.clean_env())
    assert got.returncode == 0, got.stderr
    out = json.loads(got.stdout)

    def right(rows, texts):
        assert len(rows) == len(texts)
        for row, text in zip(rows, texts):
            assert same_bits(row, f("m", "none", 8, text)), text
    right(out["default"], ["node a", "node b", "node a"])
    right(out["float"], ["node a"])
    one = out["base64"][0]
    right([np.frombuffer(base64.b64decode(one), dtype="<f4") if isinstance(one, str) else one], ["node b"])
    assert "m" in out["models"]
    assert out["notFound"]["status"] == 404 and out["notFound"]["code"] == "model_not_found"
    right(out["azure"], ["azure a"])
    # this client puts a space for each line break, so that is the text it asks for
    for second in ("chain b", "chain\nb"):
        if same_bits(out["langchain"][1], f("m", "none", 8, second)):
            break
    else:
        raise AssertionError("langchain's second vector is no text's")
    right(out["langchain"][:1], ["chain a"])
    right([out["langchainQuery"]], ["chain q"])
    right(out["ollama"], ["ollama a", "ollama b"])
    right([out["ollamaOld"]], ["ollama a"])
