"""What is fetched is checked against pinned sums, by a Java that trusts what Python trusts."""

import shutil
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from fast_spark import jars
from fast_spark.errors import SparkStartError
from fast_spark.java import find_java
from fast_spark.launch import launch_directly

import pytest
import trustme
from py4j.protocol import Py4JJavaError


def test_only_the_pinned_jars_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = [Path(shutil.copy(jar, tmp_path)) for jar in jars.kept_jars()]
    yours = tmp_path / "yours.jar"
    yours.write_text("yours")
    monkeypatch.setattr(jars, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(jars, "JARS", tmp_path / "cache" / "delta")
    jars.keep_jars(fetched[1:])
    assert jars.kept_jars() == []
    whole = fetched[0].read_bytes()
    fetched[0].write_bytes(whole[:-1])
    with pytest.raises(SparkStartError, match=f"{fetched[0]} is damaged, or not the one of Maven Central"):
        jars.keep_jars(fetched)
    assert jars.kept_jars() == []
    fetched[0].write_bytes(whole)
    jars.keep_jars([yours, *fetched])
    assert [jar.name for jar in jars.kept_jars()] == sorted(jar.name for jar in fetched)


def test_java_that_fetches_trusts_what_python_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.delenv("JAVA_TOOL_OPTIONS", raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    with (tmp_path / "java.log").open("wb") as log:
        gateway = launch_directly(find_java(), [], [], log)

    url = gateway.jvm.java.net.URL(f"https://127.0.0.1:{server.server_port}/")
    try:
        with pytest.raises(Py4JJavaError, match="PKIX path building failed"):
            url.openConnection().getResponseCode()
        jars._trust_what_python_trusts(gateway.jvm)
        assert url.openConnection().getResponseCode() == 501  # the server knows no GET
    finally:
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait(30)
        server.shutdown()
