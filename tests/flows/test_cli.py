"""The command line as a person uses it: the real binary against a real server and the fake provider.
Method: vectors are f(text), the fake counts what was bought, exit codes and --json are contracts."""
import base64
import json
import socket
import stat
import subprocess

import numpy as np
import pytest

import procs
from vectors import f, same_bits

COMMANDS = ["serve", "embed", "cache", "cache stats", "cache why", "cache purge", "spaces", "providers", "usage",
            "keys", "keys list", "keys create", "keys revoke", "backup", "restore", "doctor", "version", "faiss import", "faiss export"]


def run(*args, **more):
    """A subcommand with no server in the environment."""
    return subprocess.run([str(procs.VECKEEP), *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=60, env=procs.clean_env(**more))


def good(done):
    assert done.returncode == 0, (done.args, done.stdout, done.stderr)
    return done.stdout


def lines(done):
    return [json.loads(line) for line in good(done).splitlines()]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# ---- help and misuse: need the binary alone ----

needs_binary = pytest.mark.skipif(not procs.VECKEEP.exists(), reason=f"no {procs.VECKEEP}")


@needs_binary
@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command):
    text = good(run(*command.split(), "--help"))
    assert text.startswith(f"usage: veckeep {command}")
    if command not in ("cache", "keys"):
        assert "examples:" in text and f"veckeep {command.split()[0]}" in text.split("examples:")[1]
    assert good(run("help", *command.split())) == text


@needs_binary
def test_help_lists_every_command():
    text = good(run("--help"))
    for command in COMMANDS:
        assert f"\n  {command.split()[0]} " in text
    assert good(run("help")) == text
    assert run().returncode == 2


@needs_binary
@pytest.mark.parametrize("words, said", [
    (["embd"], 'did you mean "embed"?'),
    (["cache", "whi"], 'did you mean "why"?'),
    (["embed", "--bach", "3", "x"], "did you mean --batch?"),
    (["embed"], "no text"),
    (["embed", "--format", "xml", "x"], "--format"),
    (["embed", "--file", "a", "x"], "not both"),
    (["embed", "--batch", "0", "x"], "--batch"),
    (["cache", "purge", "--yes"], "say what"),
    (["cache", "purge", "--text", "x"], "--yes"),
    (["cache", "purge", "--older-than", "soon", "--yes"], "--older-than"),
    (["cache", "why"], "missing"),
    (["keys", "create"], "--name"),
    (["keys", "create", "--name", "x", "--scopes", "all"], "--scopes"),
    (["usage", "--from", "yesterday"], "YYYY-MM-DD"),
    (["spaces", "a", "b"], 'unexpected argument "b"'),
    (["spaces", "--url", "ftp://x"], "http://"),
])
def test_misuse_is_exit_2_and_says_what(words, said):
    done = run(*words)
    assert done.returncode == 2, done
    assert said in done.stderr and done.stdout == ""


@needs_binary
def test_no_server_is_exit_75_and_says_what_to_do():
    done = run("cache", "stats", "--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 75
    assert "veckeep serve" in done.stderr and "VECKEEP_URL" in done.stderr


@needs_binary
def test_version_names_the_libraries():
    got = json.loads(good(run("version", "--json")))
    assert got["veckeep"] and "LMDB" in got["storage"] and "libcurl" in got["upstream"] and "libmicrohttpd" in got["http"]
    assert good(run("--version")) == good(run("version"))


# ---- embed ----

def test_embed_writes_a_line_a_text_in_order(server, fake):
    texts = [f"text {i}" for i in range(600)] + ["text 3"]
    got = lines(server.cli("embed", "--model", "m", "--batch", "64", *texts))
    assert [one["index"] for one in got] == list(range(601))
    for one, text in zip(got, texts):
        assert same_bits(np.float32(one["embedding"]), f("m", "none", 8, text)), text
    assert fake.stats()["inputs"] == 600


def test_embed_forms_hold_the_same_rows(server, tmp_path):
    want = [f("m", "none", 8, t) for t in ("a", "b")]
    got = lines(server.cli("embed", "-m", "m", "-F", "base64", "a", "b"))
    for one, row in zip(got, want):
        assert same_bits(np.frombuffer(base64.b64decode(one["embedding"]), dtype="<f4"), row)
    raw = subprocess.run([str(procs.VECKEEP), "embed", "-m", "m", "--format=f32", "a", "b"], capture_output=True,
                         env=procs.clean_env(VECKEEP_URL=server.url), check=True).stdout
    for row, expected in zip(np.frombuffer(raw, dtype="<f4").reshape(2, 8), want):
        assert same_bits(row, expected)


def test_embed_reads_lines_and_json_lines(server, tmp_path):
    plain = tmp_path / "lines.txt"
    plain.write_text("one\r\n\ntwo words\nünicode\nlast without end")
    assert server.cli("embed", "-m", "m", "-f", plain).returncode == 1
    got = lines(server.cli("embed", "-m", "m", "-f", plain, "--skip-empty"))
    assert [one["index"] for one in got] == [0, 2, 3, 4]
    assert same_bits(np.float32(got[2]["embedding"]), f("m", "none", 8, "ünicode"))

    records = tmp_path / "records.jsonl"
    texts = ["with \"quotes\"", "two\nlines", "ünicode 🙂"]
    records.write_text("".join(json.dumps({"id": 7, "body": t}) + "\n" for t in texts))
    got = lines(server.cli("embed", "-m", "m", "-f", records, "--field", "body"))
    for one, text in zip(got, texts):
        assert same_bits(np.float32(one["embedding"]), f("m", "none", 8, text))
    done = server.cli("embed", "-m", "m", "-f", records, "--field", "text")
    assert done.returncode == 1 and "line 1" in done.stderr and '"text"' in done.stderr


def test_embed_summary_counts_what_was_bought_and_saved(server, fake):
    first = json.loads(good(server.cli("embed", "-m", "m", "--quiet", "--json", "a b", "c")))
    assert (first["texts"], first["hits"], first["misses"]) == (2, 0, 2)
    assert first["tokens_billed"] == 5 and first["tokens_saved"] == 0
    again = json.loads(good(server.cli("embed", "-m", "m", "-qj", "a b", "c")))
    assert (again["hits"], again["misses"], again["tokens_billed"], again["tokens_saved"]) == (2, 0, 0, 5)
    assert fake.stats()["inputs"] == 2


def test_embed_says_role_and_dims(serve, fake):
    server = serve(procs.config(fake, provider_more={"role_field": "input_type"},
                                space_more={"roles": procs.ROLES, "matryoshka": True}))
    got = lines(server.cli("embed", "-m", "m", "--role", "query", "q"))
    assert same_bits(np.float32(got[0]["embedding"]), f("m", "query", 8, "q"))
    assert len(lines(server.cli("embed", "-m", "m", "--role", "query", "--dims", "4", "q"))[0]["embedding"]) == 4
    done = server.cli("embed", "-m", "m", "--role", "nonsense", "q")
    assert done.returncode == 1 and "input_type" in done.stderr


def test_embed_tries_again_while_the_server_puts_it_off(serve, fake):
    server = serve(procs.config(fake, provider_more={"attempts": 1}))
    fake.fault("status", status=503, headers={"Retry-After": "0"}, times=2)
    got = lines(server.cli("embed", "-m", "m", "a"))
    assert same_bits(np.float32(got[0]["embedding"]), f("m", "none", 8, "a"))


def test_embed_errors_are_said_clearly(server):
    done = server.cli("embed", "-m", "nobody", "a")
    assert done.returncode == 1 and "model_not_found" in done.stderr and done.stdout == ""
    done = server.cli("embed", "-m", "m", "a", "")
    assert done.returncode == 1 and "text 2" in done.stderr and "empty" in done.stderr


# ---- cache, spaces, providers, usage ----

def test_cache_stats_why_and_purge(server, fake):
    good(server.cli("embed", "-m", "m", "-q", "keep", "go", "Go on\n"))
    assert json.loads(good(server.cli("cache", "stats", "--json")))["rows"] == 3
    assert "a hit" in good(server.cli("cache", "why", "go"))
    why = json.loads(good(server.cli("cache", "why", "-j", "Go on")))
    assert not why["found"] and any("newline" in near["how"] for near in why["near"])
    assert "a miss" in good(server.cli("cache", "why", "never seen"))

    assert "would delete 1 rows" in good(server.cli("cache", "purge", "--text", "go", "--dry-run"))
    assert "a hit" in good(server.cli("cache", "why", "go"))
    assert json.loads(good(server.cli("cache", "purge", "--text", "go", "--yes", "--json")))["rows"] == 1
    assert "a miss" in good(server.cli("cache", "why", "go"))
    assert "a hit" in good(server.cli("cache", "why", "keep"))
    assert json.loads(good(server.cli("cache", "purge", "--space", "test/m@1", "--yes", "--json")))["rows"] == 2
    done = server.cli("cache", "purge", "--space", "nowhere", "--yes")
    assert done.returncode == 1 and "space" in done.stderr


def test_spaces_providers_and_usage(server):
    good(server.cli("embed", "-m", "m", "-q", "a", "b"))
    assert "test/m@1" in good(server.cli("spaces"))
    assert json.loads(good(server.cli("spaces", "-j", "test/m@1")))["dims"] == 8
    assert server.cli("spaces", "nowhere").returncode == 1
    assert "fake" in good(server.cli("providers"))
    assert json.loads(good(server.cli("providers", "-j")))["data"][0]["calls_ok"] == 1
    usage = json.loads(good(server.cli("usage", "--json")))
    assert usage["totals"]["inputs"] == 2 and usage["data"][0]["space"] == "test/m@1"
    assert json.loads(good(server.cli("usage", "-j", "--to", "2020-01-01")))["data"] == []
    assert "total" in good(server.cli("usage"))


# ---- keys ----

def test_keys_are_made_used_and_taken_back(server, tmp_path):
    admin = good(server.cli("keys", "create", "--name", "ops", "--scopes", "admin")).strip()
    assert admin.startswith("vkeep_")
    refused = server.cli("keys", "list")
    assert refused.returncode == 1 and "VECKEEP_API_KEY" in refused.stderr

    server.key = admin
    made = json.loads(good(server.cli("keys", "create", "--name", "rag", "--scopes", "embed", "--expires", "90d", "-j")))
    listed = good(server.cli("keys", "list"))
    assert "rag" in listed and made["id"] in listed and made["key"] not in listed

    secret = tmp_path / "key"
    secret.write_text(made["key"] + "\n")
    secret.chmod(stat.S_IRUSR)
    server.key = None
    good(server.cli("embed", "-m", "m", "--api-key-file", secret, "a"))
    denied = server.cli("keys", "list", "--api-key-file", secret)
    assert denied.returncode == 1 and "scope" in denied.stderr

    server.key = admin
    assert "revoked" in good(server.cli("keys", "revoke", made["id"]))
    server.key = None
    assert server.cli("embed", "-m", "m", "--api-key-file", secret, "a").returncode == 1
    missing = server.cli("keys", "list", "--api-key-file", tmp_path / "nowhere")
    assert missing.returncode == 1 and "nowhere" in missing.stderr


# ---- backup and restore ----

def test_backup_under_a_server_restores_every_row(serve, fake, tmp_path):
    server = serve(procs.config(fake))
    texts = [f"t{i}" for i in range(500)]
    good(server.cli("embed", "-m", "m", "-q", *texts))
    made = json.loads(good(server.cli("backup", "--json", tmp_path / "backup")))
    assert made["bytes"] > 0 and (tmp_path / "backup" / "manifest.json").exists()
    again = server.cli("backup", tmp_path / "backup")
    assert again.returncode == 1 and "empty" in again.stderr

    other = tmp_path / "restored"
    other.mkdir()
    good(server.cli("restore", tmp_path / "backup", "--data-dir", other / "data"))
    second = serve(procs.config(fake), dir="restored")
    got = json.loads(good(second.cli("embed", "-m", "m", "-qj", *texts)))
    assert got["hits"] == 500 and fake.stats()["inputs"] == 500
    done = server.cli("restore", tmp_path / "backup", "--data-dir", other / "data")
    assert done.returncode != 0, "a data directory that is in use was overwritten"


def test_backup_without_a_server_reads_the_data_directory(serve, fake, tmp_path):
    server = serve(procs.config(fake))
    good(server.cli("embed", "-m", "m", "-q", "a", "b"))
    assert server.stop() == 0
    done = server.cli("backup", tmp_path / "b1")
    assert done.returncode == 75, done
    good(server.cli("backup", "--data-dir", server.data, tmp_path / "b1"))
    other = tmp_path / "restored"
    other.mkdir()
    good(server.cli("restore", tmp_path / "b1", "--data-dir", other / "data"))
    second = serve(procs.config(fake), dir="restored")
    assert json.loads(good(second.cli("cache", "stats", "-j")))["rows"] == 2


def test_restore_refuses_a_damaged_backup(server, tmp_path):
    good(server.cli("embed", "-m", "m", "-q", "a"))
    good(server.cli("backup", tmp_path / "b"))
    path = tmp_path / "b" / "cache.mdb"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = server.cli("restore", tmp_path / "b", "--data-dir", tmp_path / "d")
    assert done.returncode == 1 and "cache.mdb" in done.stderr
    assert not (tmp_path / "d").exists() or not any((tmp_path / "d").iterdir())


# ---- doctor ----

def checks(done):
    return {(c["check"], c["state"]): c["text"] for c in json.loads(done.stdout)["checks"]}


def test_doctor_is_content_with_a_good_server(server):
    done = server.cli("doctor", "--config", server.config_path, "--data-dir", server.data, "--json")
    assert done.returncode == 0, done
    got = checks(done)
    assert ("server", "ok") in got and ("config", "ok") in got and "reachable" in got["provider", "ok"]
    assert not any(state == "fail" for _, state in got)
    text = good(server.cli("doctor", "--config", server.config_path, "--data-dir", server.data))
    assert "0 failed" in text


def test_doctor_finds_what_is_wrong_and_tells_no_secret(server, tmp_path):
    dead = free_port()
    secret = "sk-very-secret-value"
    config = {"providers": {"gone": {"dialect": "openai", "base_url": f"http://127.0.0.1:{dead}/v1", "api_key": secret}},
              "spaces": {"x/y@1": {"dims": 4, "route": [{"provider": "gone", "model": "y"}]}}}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    done = server.cli("doctor", "--config", path, "--data-dir", server.data, "--json")
    assert done.returncode == 1 and "gone" in checks(done)["provider", "fail"]
    assert secret not in done.stdout + done.stderr

    config["spaces"]["x/y@1"]["route"][0]["provider"] = "nobody"
    path.write_text(json.dumps(config))
    done = server.cli("doctor", "--config", path, "--json")
    assert done.returncode == 1 and "nobody" in checks(done)["config", "fail"]
    assert secret not in done.stdout + done.stderr
