"""No secret of the environment or of a URI is recorded, sent to MLflow or printed."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest
from ruamel.yaml import YAML

from ganstudy.provenance import HIDDEN, holds_secret, redact
from tests.conftest import ROOT, ganstudy

PASSWORD = "pa55-w0rd/of@mine"  # noqa: S105 - with what a URI should have escaped
SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": "mlflow-is-my-secret",
    "RAY_AUTH_TOKEN": "0123-token-of-the-cluster",
    "AWS_ACCESS_KEY_ID": "AKIA-EXAMPLE-OF-A-KEY",
    "AWS_SECRET_ACCESS_KEY": "wJalr/XUtnFEMI+K7MDENG",
}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"http://me:{PASSWORD}@host:5000/x and more", "http://***@host:5000/x and more"),
        ("postgresql+psycopg2://me:pw@host/db", "postgresql+psycopg2://***@host/db"),
        ("https://token@host/", "https://***@host/"),
        (
            "s3://b/p?access_key=AK&secret_key=SK&region=eu",
            "s3://b/p?access_key=***&secret_key=***&region=eu",
        ),
        ("https://a.net/b?sv=1&sig=ab%2Bc&se=2", "https://a.net/b?sv=1&sig=***&se=2"),
        ("?X-Amz-Credential=AK&X-Amz-Signature=5d", "?X-Amz-Credential=***&X-Amz-Signature=***"),
        ("{'Authorization': 'Bearer abc.def'}", "{'Authorization': 'Bearer ***'}"),
        ('{"password": "two words", "x": 1}', '{"password": ***, "x": 1}'),
        ("http://h/?auth=a1&x=2", "http://h/?auth=***&x=2"),
        ("http://h/?pass=a1&x=2", "http://h/?pass=***&x=2"),
        ("http://h/?x=2&jwt=a1", "http://h/?x=2&jwt=***"),
        ("passphrase=open-sesame", "passphrase=***"),
        ("db_pass=a1 basic_auth=me:pw", "db_pass=*** basic_auth=***"),
        ("password: x", "password: ***"),
        ("password: 'two words', x: 1", "password: ***, x: 1"),
        ("pwd = hunter2", "pwd = ***"),
        ("api_key: a1, access-key: b2", "api_key: ***, access-key: ***"),
        ("X-Api-Key: a1", "X-Api-Key: ***"),
        ("https://h/?api_key=a1&apikey=b2", "https://h/?api_key=***&apikey=***"),
        ("AccountName=me;AccountKey=a1;x=1", "AccountName=me;AccountKey=***;x=1"),
        ("SharedAccessSignature=sv=2&sig=b2", "SharedAccessSignature=***&sig=***"),
        ("refused: Bearer abc.def-123", "refused: Bearer ***"),
        ("Cookie: sid=1; user=me", "Cookie: ***"),
        ("saw eyJhbGciOi.eyJzdWIi.c2ln here", "saw *** here"),
        ("AKIAABCDEFGHIJKLMNOP is the key", "*** is the key"),
        ("ghp_0123456789abcdefghij, hf_0123456789abcdefghij", "***, ***"),
        (
            "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----***-----END PRIVATE KEY-----",
        ),
    ],
)
def test_secrets_are_hidden_and_the_rest_is_kept(text, told):
    assert redact(text) == told
    assert holds_secret(text)
    assert redact(told) == told


@pytest.mark.parametrize(
    "text",
    [
        "ganstudy run s.yaml --set design.configs=8 --runs s3://bucket/runs --address auto",
        "http://head:8265/#/jobs, git@github.com:a/b, me@example.org",
        "unknown key 'lr'; did you mean: tokens",
        "sqlite:////home/me/runs/mlflow.db",
        "unexpected token: '}', first key: lr, bypass=1, encompass=2, passes=3, author=me",
        "base.dataset.images_key: 3 letters; --set base.dataset.labels: y",
        "the bearer of bad news, a pass: fine, auth: none is needed, HEAD:6379 cookies",
        "study.yaml: base.keys: unknown; compass: north; sigma=0.1, design=4, mass=2, gas=1",
        "wasserstein eyJ hf_small sha256:0123456789abcdef0123456789abcdef",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text
    assert not holds_secret(text)


def test_values_of_the_environment_are_hidden_as_whole_words(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "abcdefgh")
    monkeypatch.setenv("OTHER_TOKEN", "short")
    monkeypatch.setenv("PWD", "/home/me/runs")  # the working directory, not a password
    assert redact("abcdefgh, abcdefghi, short") == f"{HIDDEN}, abcdefghi, short"
    assert redact("/home/me/runs") == "/home/me/runs"


@pytest.mark.parametrize(
    "name", ["DB_PASS", "PASS", "MY_AUTH", "SOME_JWT", "DB_PWD", "A_PASSPHRASE"]
)
def test_variables_named_like_a_secret_are_hidden(name, monkeypatch):
    monkeypatch.setenv(name, "open-sesame")
    assert redact("said open-sesame") == f"said {HIDDEN}"


@pytest.fixture
def dead_port():
    """A port that nothing listens at while the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def study(tiny, tmp_path):
    """A study of one trial, which needs no network."""
    tiny["arms"] = {"non_saturating": {"loss": "non_saturating"}}
    tiny["base"]["dataset"] = "ring"
    tiny["base"]["budget"]["discriminator_updates"] = 20
    tiny["measure"]["features"] = "pixels"
    tiny["design"]["configs"] = 1
    path = tmp_path / "study.yaml"
    with path.open("w") as file:
        YAML().dump(tiny, file)
    return path


def run(*arguments):
    """Run a command with secrets in its environment; return its exit code and all it printed."""
    environment = os.environ | SECRETS | {"MLFLOW_TRACKING_USERNAME": "me", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ganstudy(*arguments), cwd=ROOT, env=environment, capture_output=True, timeout=250
    )
    return done.returncode, done.stdout + done.stderr


def leaks(*places):
    """Return which secrets stand in which file of folders, or in bytes."""
    found = []
    for place in places:
        files = (
            [path for path in place.rglob("*") if path.is_file()]
            if hasattr(place, "rglob")
            else []
        )
        texts = {str(path): path.read_bytes() for path in files} or {"printed": place}
        for name, text in texts.items():
            found += [
                (s, name) for s in (*SECRETS.values(), PASSWORD, "pa55") if s.encode() in text
            ]
    return found


def test_no_secret_in_any_byte_of_a_study(study, tmp_path, dead_port):
    """MLflow is away first, so that its failure is told; then it is there and gets all."""
    runs, store = tmp_path / "runs", tmp_path / "store"
    store.mkdir()
    uri = f"http://me:{PASSWORD}@127.0.0.1:{dead_port}"
    code, printed = run("run", study, "--runs", runs, "--in-process", "--tracking-uri", uri)
    assert code == 0, printed
    assert b"cannot be written" in printed
    assert f"http://***@127.0.0.1:{dead_port}".encode() in printed
    folder = runs / "tiny"
    command = (folder / "provenance.json").read_text()
    assert f"--tracking-uri http://***@127.0.0.1:{dead_port}" in command
    code, again = run(
        "resume", folder, "--in-process", "--tracking-uri", f"sqlite:///{store / 'mlflow.db'}"
    )
    assert code == 0, again
    assert (store / "mlflow.db").stat().st_size > 1000
    shown = [run(command, folder)[1] for command in ("status", "ui", "report")]
    assert leaks(runs, store, printed, again, *shown) == []


def test_a_traceback_is_recorded_without_its_secrets(tmp_path, monkeypatch):
    from ganstudy.store import TrialFolder

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    trial = TrialFolder(tmp_path / "t")
    attempt = trial.new_attempt()
    secret = SECRETS["AWS_SECRET_ACCESS_KEY"]
    attempt.note_error(f"Traceback\nOSError: s3://b?secret_key={PASSWORD} refuses {secret}")
    assert trial.fail("") == "OSError: s3://b?secret_key=*** refuses ***"
    assert leaks(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--runs", "s3://bucket/runs?secret_key=pa55"], b"AWS_SECRET_ACCESS_KEY"),
        (["--set", "question=see http://me:pa55@host/"], b"--set question"),
        (
            ["--address", "127.0.0.1:1", "--tracking-uri", "http://me:pa55@h:1"],
            b"MLFLOW_TRACKING_PASSWORD",
        ),
    ],
)
def test_secrets_are_refused_where_they_would_be_shown(arguments, told, study, tmp_path):
    code, printed = run("run", study, "--runs", tmp_path / "runs", *arguments)
    assert code == 2
    assert told in printed
    assert leaks(printed) == []
    assert not (tmp_path / "runs").exists()
