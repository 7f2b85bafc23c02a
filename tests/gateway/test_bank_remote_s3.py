"""Versions in S3, as it is spoken on a socket: by a server of its own, with what s3fs needs found in the environment.

What speaks S3 wants an older python-dateutil than the other libraries here, so it is in no extra: install s3fs, boto3
and moto[server] in an environment beside this one to run it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antiprompt_bank import BankCorrupt
from antiprompt_bank.remote import RemoteUnavailable, RemoteVersions
from tests.gateway.banks import NEW, Folder, exemplar

WHY = "needs s3fs, boto3 and moto[server], which no extra brings"
s3fs = pytest.importorskip("s3fs", reason=WHY)
boto3 = pytest.importorskip("boto3", reason=WHY)
moto = pytest.importorskip("moto.server", reason=WHY)

BUCKET = "versions"


@pytest.fixture
def server() -> Iterator[Any]:
    started = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def s3(server: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    s3fs.S3FileSystem.clear_instance_cache()  # or it would ask the server of the test before
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
    ):
        monkeypatch.setenv(name, value)
    bucket = boto3.resource("s3").create_bucket(Bucket=BUCKET)
    bucket.objects.all().delete()  # servers of one process have one memory
    return f"s3://{BUCKET}/banks"


def test_versions_are_pushed_listed_and_pulled(s3: str, tmp_path: Path) -> None:
    here, there, remote = Folder(tmp_path / "here"), Folder(tmp_path / "there"), RemoteVersions(s3)
    assert remote.versions() == ()
    second = here.add(exemplar(NEW), minute=1, parent=here.first)
    for version in (here.first, second):
        assert remote.push(here.store, version)
        assert not remote.push(here.store, version)  # it is there
    assert remote.versions() == (here.first, second)
    RemoteVersions(s3).pull(second, there.store)
    assert there.store.manifest(second).files == here.store.manifest(second).files
    assert there.load(second, None).score([NEW], side="request")[0].risk > 0.9


def test_what_was_damaged_there_is_not_taken(s3: str, tmp_path: Path) -> None:
    here, there, remote = Folder(tmp_path / "here"), Folder(tmp_path / "there"), RemoteVersions(s3)
    second = here.add(exemplar(NEW), minute=1)
    remote.push(here.store, second)
    client = boto3.client("s3")
    for row in client.list_objects_v2(Bucket=BUCKET, Prefix="banks/files/")["Contents"]:
        client.put_object(Bucket=BUCKET, Key=row["Key"], Body=b"damaged")
    with pytest.raises(BankCorrupt):
        remote.pull(second, there.store)
    assert second not in there.store.versions()


def test_a_server_that_is_gone_is_unavailable(s3: str, server: Any, tmp_path: Path) -> None:
    here = Folder(tmp_path / "here")
    server.stop()
    with pytest.raises(RemoteUnavailable):
        RemoteVersions(s3).push(here.store, here.first)
