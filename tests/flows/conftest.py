"""Fixtures: `fake` and `serve` make processes that end with the test; a server that does not end with
exit code 0 (a crash, a sanitizer's report, a hang) fails its test whatever the test itself found."""
import os
import pathlib
import site
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import numpy as np  # noqa: E402

import procs  # noqa: E402
import seeds  # noqa: E402
import vectors  # noqa: E402

# What clients would fetch from the net otherwise: the tokenizer data come with a package, prices are local.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
for packages in site.getsitepackages():
    data = pathlib.Path(packages) / "llama_index" / "core" / "_static" / "tiktoken_cache"
    if data.is_dir():
        os.environ["TIKTOKEN_CACHE_DIR"] = str(data)


def pytest_report_header():
    return [f"veckeep: {procs.VECKEEP}", f"fake provider: {procs.FAKE}"]


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"VECKEEP_SEED={seeds.SEED}")


def pytest_collection_modifyitems(items):
    """Without the server only the fake's own tests can run; VECKEEP_NEED=1 makes that an error."""
    if procs.VECKEEP.exists() or os.environ.get("VECKEEP_NEED"):
        return
    skip = pytest.mark.skip(reason=f"no server at {procs.VECKEEP}")
    for item in items:
        if "server" in getattr(item, "fixturenames", ()) or "serve" in getattr(item, "fixturenames", ()):
            item.add_marker(skip)


@pytest.fixture
def make_fake():
    """make_fake(*options, dims=8) -> Fake"""
    made = []

    def make(*options, **more):
        made.append(procs.Fake(*options, **more))
        return made[-1]

    yield make
    codes = [one.stop() for one in made]
    assert all(code == 0 for code in codes), codes


@pytest.fixture
def fake(make_fake):
    return make_fake()


@pytest.fixture
def serve(tmp_path):
    """serve(config, env=, args=, dir=) -> Server, ready"""
    made = []

    def make(config, dir=None, **more):
        dir = tmp_path / (dir or f"server{len(made)}")
        dir.mkdir(exist_ok=True)
        made.append(procs.Server(dir, config, **more))
        return made[-1]

    yield make
    codes = [(one.stop(), one) for one in made]
    for code, one in codes:
        assert code == 0, f"veckeep ended with {code}\n{one.log(80)}"


@pytest.fixture
def plain(serve):
    """A server without providers: collections need none."""
    return serve({"providers": {}})


@pytest.fixture
def server(serve, fake):
    """The smallest server: model "m", 8 dims, behind `fake`."""
    return serve(procs.config(fake))


def check_rows(got, want):
    assert len(got) == len(want), (len(got), len(want))
    for i, (a, b) in enumerate(zip(got, want)):
        assert vectors.same_bits(a, b), f"slot {i}: got {np.asarray(a)[:4]}.., want {np.asarray(b)[:4]}.."


@pytest.fixture
def check():
    """check(answer, texts, space=, role=, dims=): a 200 whose every slot is f(its text), index in order."""
    def one(answer, texts, **of):
        assert answer.status == 200, answer
        body = answer.json()
        assert [item["index"] for item in body["data"]] == list(range(len(texts)))
        check_rows(answer.rows(), procs.expect(texts, **of))
        return body
    return one
