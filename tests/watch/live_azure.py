"""The watcher on Azure's Blob storage, as Azurite emulates it: `make test-azure`."""

import base64
import hashlib
import hmac
import os
import re
import subprocess
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from urllib.request import Request, urlopen

from delta_watch import store
from delta_watch.backlog import Amount
from delta_watch.watcher import Discovery, Watcher
from tests.helpers.handmade_tables import Files, known, lag, offset

import obstore
import pytest
from obstore.store import from_url

AZURITE = Path(os.environ["AZURITE"])
ACCOUNT = "devstoreaccount1"  # it and its key are printed in Azurite's manual
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture
def container(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of an empty container."""
    folder = str(tmp_path_factory.mktemp("azurite"))
    command = [str(AZURITE), "--blobPort", "0", "--location", folder, "--skipApiVersionCheck", "--disableTelemetry"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            address = next(found[0] for line in process.stdout if (found := re.search(r"http://[\d.]+:\d+", line)))
            create_container(address, "lake")
            monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
            monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", address)
            store._bucket.cache_clear()
            yield "lake"
        finally:
            process.kill()


def create_container(address: str, name: str) -> None:
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    signed = "\n".join(["PUT", *[""] * 11, *(f"{key}:{value}" for key, value in headers.items())])
    signed += f"\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signature = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
    urlopen(Request(f"{address}/{ACCOUNT}/{name}?restype=container", headers=headers, method="PUT"), timeout=10).close()


def test_lag_on_azure(container: str, files: Files, tmp_path: Path) -> None:
    def upload() -> None:
        for file in tmp_path.rglob("*"):
            if file.is_file():
                obstore.put(from_url(f"az://{container}"), f"jobs/{file.relative_to(tmp_path)}", file.read_bytes())

    (files.log / "_last_checkpoint").write_text('{"version": 5}')
    upload()
    places = [f"az://{container}/jobs", f"abfss://{container}@{ACCOUNT}.dfs.core.windows.net/jobs"]
    watchers = [Watcher({"orders": f"{place}/table"}, [], [Discovery("orders", f"{place}/*")]) for place in places]
    for watcher in watchers:
        backlog = known(watcher)
        assert (backlog.version, backlog.versions, backlog.amount) == (3, 3, Amount(3, 300, 3))
    files.append(7, 8)
    files.read(1, offset(8))
    upload()
    for watcher in watchers:
        assert lag(watcher) == (7, 1)
