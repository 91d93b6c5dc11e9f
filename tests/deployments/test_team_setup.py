"""The team set-up on loopback: Prefect and MLflow on PostgreSQL, artifacts on S3, basic auth, one whole study.

PostgreSQL is Debian's, the S3-compatible store is moto's server, and `robust serve` is started as a person would.
"""

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest

STUDY = """\
name: team
dataset: {name: digits, train: 200, select: 50, calibrate: 50, test: 40}
models: [{name: mlp, hidden: [16]}]
objectives: [{name: standard, training: {epochs: 1}}]
evaluations: [clean, {name: fgsm, eps: 1/10}]
validity: 16
report: {examples: 0}
shard: 20
"""
PASSWORD = "correct-horse-battery"  # of servers that live for a minute, on loopback
ROBUST = [sys.executable, "-c", "from flows.cli import main; main()"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def wait_for(true, seconds: float, what: str):
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return found


@dataclass(frozen=True)
class Postgres:
    port: int

    def url(self, database: str, driver: str = "postgresql") -> str:
        return f"{driver}://robust:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def query(self, database: str, question: str) -> list[tuple]:
        with closing(psycopg2.connect(self.url(database))) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(question)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def postgres(postgres_binaries):
    """A server with a password, three databases and a folder that only its user may read."""
    port = free_port()
    # PostgreSQL refuses to run as root
    user = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="robust-postgres-"))
    (folder / "password").write_text(PASSWORD)
    if user:
        for path in (folder, folder / "password"):
            os.chown(path, pwd.getpwnam(user).pw_uid, -1)
    made = [
        postgres_binaries / "initdb",
        "-D",
        folder / "data",
        "-U",
        "robust",
        "--auth=scram-sha-256",
        "-E",
        "UTF8",
        "-N",
    ]
    subprocess.run([*made, f"--pwfile={folder / 'password'}"], user=user, check=True, capture_output=True, cwd=folder)
    settings = ["-h", "127.0.0.1", "-p", str(port), "-k", folder, "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [postgres_binaries / "postgres", "-D", folder / "data", *settings], user=user, stderr=log, cwd=folder
        )
    try:
        found = Postgres(port)
        wait_for(lambda: answers_postgres(found), 60, "PostgreSQL does not come up")
        for database in ("prefect", "mlflow", "mlflow_auth"):
            found.query("postgres", f"CREATE DATABASE {database}")
        yield found
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder)


def answers_postgres(server: Postgres) -> bool:
    try:
        return server.query("postgres", "SELECT 1") == [(1,)]
    except psycopg2.OperationalError:
        return False


@pytest.fixture(scope="module")
def bucket():
    """Variables that lead to an S3-compatible store with one bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", free_port(), verbose=False)
    server.start()
    try:
        variables = {
            "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
            "AWS_ACCESS_KEY_ID": "team",
            "AWS_SECRET_ACCESS_KEY": PASSWORD,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        client = boto3.client(
            "s3",
            endpoint_url=variables["AWS_ENDPOINT_URL"],
            aws_access_key_id="team",
            aws_secret_access_key=PASSWORD,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="team")
        yield variables, client
    finally:
        server.stop()


@dataclass(frozen=True)
class Team:
    folder: Path
    variables: dict[str, str]
    prefect: str
    mlflow: str

    def run(self, home: str, *arguments: str) -> str:
        done = subprocess.run(
            [*ROBUST, *arguments, "--home", str(self.folder / home)],
            cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def team(postgres, bucket, tmp_path_factory):
    """`robust serve` on PostgreSQL, S3 and basic auth, and what a member of the team has in the environment."""
    folder = tmp_path_factory.mktemp("team")
    (folder / "team.yaml").write_text(STUDY)
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = {postgres.url('mlflow_auth')}\n"
        f"admin_username = admin\nadmin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    ports = {"prefect": free_port(), "mlflow": free_port()}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "ROBUST_", "AWS_"))}
    member = {
        **kept, **bucket[0], "OMP_NUM_THREADS": "1", "ROBUST_STORE": "s3://team/store",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['mlflow']}",
        "MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        "PREFECT_API_URL": f"http://127.0.0.1:{ports['prefect']}/api",
    }  # fmt: skip
    servers = {
        **kept, **bucket[0],
        "PREFECT_API_DATABASE_CONNECTION_URL": postgres.url("prefect", "postgresql+asyncpg"),
        "MLFLOW_BACKEND_STORE_URI": postgres.url("mlflow"), "MLFLOW_ARTIFACTS_DESTINATION": "s3://team/mlflow",
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": PASSWORD,
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{ports['mlflow']},mlflow.team.example",
    }  # fmt: skip
    given = [f"--{name}-port={port}" for name, port in ports.items()]
    process = subprocess.Popen(
        [*ROBUST, "serve", "--home", str(folder / "servers"), *given],
        cwd=folder, env=servers, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("serving"):
                break
        logs = "".join(path.read_text()[-2000:] for path in (folder / "servers/logs").glob("*.log"))
        assert said[-1].startswith("serving"), f"{said}\n{logs}"
        yield Team(folder, member, *(f"http://127.0.0.1:{port}" for port in ports.values()))
    finally:
        process.terminate()
        process.communicate(timeout=60)


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_whole_study_on_postgresql_and_s3(team, postgres, bucket):
    report = team.run("one", "run", "team.yaml").splitlines()[-1]
    assert Path(report).is_file()

    runs = "select count(*) from flow_run where state_type = 'COMPLETED'"
    wait_for(lambda: postgres.query("prefect", runs) == [(1,)], 30, "Prefect's run is not in PostgreSQL")
    statuses = postgres.query("mlflow", "select status, count(*) from runs group by status")
    assert statuses == [("FINISHED", 2)]
    keys = [item["Key"] for item in bucket[1].list_objects_v2(Bucket="team")["Contents"]]
    assert any(key.startswith("store/objects/") for key in keys)
    assert any(key.startswith("store/records/evaluate/") for key in keys)
    assert any(key.startswith("mlflow/") and key.endswith("report.html") for key in keys)
    local = [path for path in (team.folder / "one" / "store").rglob("*") if path.is_file()]
    assert not local, "with a remote store nothing is kept in the home's own"

    # another machine of the team: another home, the same store
    steps = json.loads(team.run("two", "plan", "team.yaml", "--json"))
    assert all(step["hit"] for step in steps), steps
    assert_no_secret(team, postgres, bucket)


def assert_no_secret(team, postgres, bucket) -> None:
    """The password stands in no file of a home, in no object of the store and in no table that pages show."""
    for home in ("one", "two", "servers"):
        for path in (team.folder / home).rglob("*"):
            assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path
    for item in bucket[1].list_objects_v2(Bucket="team")["Contents"]:
        body = bucket[1].get_object(Bucket="team", Key=item["Key"])["Body"].read()
        assert PASSWORD.encode() not in body, item["Key"]
    for database, table in (("mlflow", "tags"), ("mlflow", "params"), ("prefect", "log"), ("prefect", "flow_run")):
        assert not postgres.query(database, f"select 1 from {table} t where t::text like '%{PASSWORD}%' limit 1"), table


@pytest.mark.slow
def test_mlflow_asks_who_is_there_and_under_which_name(team):
    page = f"{team.mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    known = {"Authorization": "Basic " + b64encode(f"admin:{PASSWORD}".encode()).decode()}
    assert status(page) == 401
    assert status(page, Authorization="Basic " + b64encode(b"admin:guess").decode()) == 401
    assert status(page, **known) == 200
    assert status(page, Host="evil.example", **known) == 403
    assert status(page, Host="mlflow.team.example", **known) == 200
