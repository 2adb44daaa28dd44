"""Is a server ready? One real request of its own protocol each, raw over a socket, so that the supervisor loads no
driver. Every probe returns if the server is ready and raises NotReady if not (yet)."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import socket
import ssl
import struct
import urllib.parse
from types import TracebackType
from typing import Any

from infra import clock
from infra.stack.errors import NotReady

TIMEOUT_S = 5.0


def trust(ca_file: str) -> ssl.SSLContext | None:
    """What a server's certificate is checked with; None for a server that speaks plainly."""
    return ssl.create_default_context(cafile=ca_file) if ca_file else None


def _connection(host: str, port: int, timeout_s: float, trust: ssl.SSLContext | None) -> socket.socket:
    plain = socket.create_connection((host, port), timeout_s)
    if trust is None:
        return plain
    try:
        return trust.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            raise NotReady("closed the connection")
        data += chunk
    return bytes(data)


def kafka(host: str, port: int, user: str, password: str, *, trust: ssl.SSLContext | None = None) -> None:
    """Log in by PLAIN, then ask for the metadata of no topic: ready once a broker is registered with a controller."""
    try:
        with _connection(host, port, TIMEOUT_S, trust) as connection:
            _kafka_ask(connection, 17, 1, struct.pack(">h5s", 5, b"PLAIN"))
            login = f"\0{user}\0{password}".encode()
            refused = struct.unpack_from(">h", _kafka_ask(connection, 36, 0, struct.pack(">i", len(login)) + login), 4)
            if refused[0]:
                raise NotReady("Kafka: the login of its own user is refused")
            answer = _kafka_ask(connection, 3, 4, struct.pack(">ib", 0, 0))
    except OSError as e:
        raise NotReady(f"Kafka: {e}") from e
    # correlation id, throttle time, brokers: node id, host, port, rack; cluster id; controller id
    at = 8
    (brokers,) = struct.unpack_from(">i", answer, at)
    at += 4
    for _ in range(brokers):
        at += 4
        at = _skip_string(answer, at) + 4
        at = _skip_string(answer, at)
    at = _skip_string(answer, at)
    (controller,) = struct.unpack_from(">i", answer, at)
    if brokers < 1 or controller < 0:
        raise NotReady("Kafka: no broker registered yet")


def _kafka_ask(connection: socket.socket, key: int, version: int, body: bytes) -> bytes:
    """The answer to a request (kafka.apache.org/protocol): SaslHandshake 17, SaslAuthenticate 36, Metadata 3."""
    client = b"sijil-probe"
    request = struct.pack(">hhih", key, version, 1, len(client)) + client + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", _exactly(connection, 4))
    return _exactly(connection, size)


def _skip_string(data: bytes, at: int) -> int:
    length: int = struct.unpack_from(">h", data, at)[0]
    return at + 2 + max(length, 0)


class Cql:
    """One connection of Cassandra's native protocol v4, logged in: enough to probe and to set up roles.

    https://cassandra.apache.org/doc/latest/cassandra/_attachments/native_protocol_v4.html
    """

    _ERROR, _STARTUP, _READY, _AUTHENTICATE, _QUERY, _RESULT = 0x00, 0x01, 0x02, 0x03, 0x07, 0x08
    _AUTH_RESPONSE, _AUTH_SUCCESS = 0x0F, 0x10
    BAD_CREDENTIALS = 0x0100

    def __init__(
        self,
        host: str,
        port: int,
        username: str,
        password: str,
        timeout_s: float = TIMEOUT_S,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """Raises NotReady when nobody answers, CqlError when the login is refused."""
        try:
            self._socket = _connection(host, port, timeout_s, trust)
        except OSError as e:
            raise NotReady(f"Cassandra: {e}") from e
        try:
            opcode, _ = self._ask(self._STARTUP, struct.pack(">h", 1) + _short("CQL_VERSION") + _short("3.0.0"))
            if opcode == self._AUTHENTICATE:
                token = f"\0{username}\0{password}".encode()
                opcode, _ = self._ask(self._AUTH_RESPONSE, struct.pack(">i", len(token)) + token)
            if opcode not in (self._READY, self._AUTH_SUCCESS):
                raise NotReady(f"Cassandra: unexpected opcode {opcode}")
        except BaseException:
            self._socket.close()
            raise

    def execute(self, statement: str) -> None:
        """Run one statement at consistency ONE. Raises CqlError."""
        text = statement.encode()
        self._ask(self._QUERY, struct.pack(">i", len(text)) + text + struct.pack(">hb", 1, 0))

    def _ask(self, opcode: int, body: bytes) -> tuple[int, bytes]:
        try:
            self._socket.sendall(struct.pack(">BBhBi", 4, 0, 1, opcode, len(body)) + body)
            _, _, _, answer, size = struct.unpack(">BBhBi", _exactly(self._socket, 9))
            data = _exactly(self._socket, size)
        except OSError as e:
            raise NotReady(f"Cassandra: {e}") from e
        if answer == self._ERROR:
            code, length = struct.unpack_from(">ih", data)
            raise CqlError(code, data[6 : 6 + length].decode(errors="replace"))
        return answer, data

    def __enter__(self) -> Cql:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()


class CqlError(NotReady):
    """Cassandra answered with an error frame; `code` is the protocol's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"Cassandra: {message}")
        self.code = code


def _short(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def cassandra(host: str, port: int, username: str, password: str, *, trust: ssl.SSLContext | None = None) -> None:
    """A login and one read: ready when the auth tables answer."""
    with Cql(host, port, username, password, trust=trust) as connection:
        connection.execute("SELECT key FROM system.local")


def s3(endpoint: str, region: str, access_key: str, secret_key: str, *, trust: ssl.SSLContext | None = None) -> None:
    """ListBuckets signed with Signature Version 4."""
    status, _ = signed_get(endpoint, "/", region, access_key, secret_key, trust)
    if status != 200:
        raise NotReady(f"S3: ListBuckets answers {status}")


def seaweedfs_volumes(host: str, port: int) -> None:
    """The master's topology: the S3 gateway answers before there is anywhere to write to."""
    status, data = _get(host, port, "/dir/status")
    if status != 200 or not json.loads(data)["Topology"]["Max"]:
        raise NotReady("S3: no volume server yet")


def signed_get(
    endpoint: str, path: str, region: str, access_key: str, secret_key: str, trust: ssl.SSLContext | None = None
) -> tuple[int, bytes]:
    """(status, body) of a GET without query, signed (AWS Signature Version 4, header form). Raises NotReady."""
    url = urllib.parse.urlsplit(endpoint)
    now = clock.now()
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    nothing = hashlib.sha256(b"").hexdigest()
    headers = {"host": url.netloc, "x-amz-content-sha256": nothing, "x-amz-date": stamp}
    names = ";".join(headers)
    canonical = "\n".join(["GET", path, "", *(f"{k}:{v}" for k, v in headers.items()), "", names, nothing])
    scope = f"{day}/{region}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + secret_key.encode()
    for word in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return _get(url.hostname or "", url.port or 80, path, headers, trust)


def _get(
    host: str, port: int, path: str, headers: dict[str, str] | None = None, trust: ssl.SSLContext | None = None
) -> tuple[int, bytes]:
    plain = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    connection = plain if trust is None else http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=trust)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as e:
        raise NotReady(f"http://{host}:{port}{path}: {e}") from e
    finally:
        connection.close()


def http_ready(host: str, port: int) -> None:
    """`/health/ready` of one of Sijil's own processes. Raises NotReady naming the checks that fail."""
    body = health(host, port)
    if not body.get("ready"):
        failing = [name for name, holds in dict(body.get("checks", {})).items() if not holds]
        raise NotReady(f"waits for {', '.join(failing) or 'itself'}")


def health(host: str, port: int) -> dict[str, Any]:
    """The JSON body of `/health/ready`, whatever its status. Raises NotReady if there is none."""
    _, data = _get(host, port, "/health/ready")
    try:
        body = json.loads(data)
    except ValueError as e:
        raise NotReady("answers, but not with JSON") from e
    return body if isinstance(body, dict) else {}


def live(host: str, port: int) -> bool:
    """Whether `/health/live` answers with 200."""
    try:
        status, _ = _get(host, port, "/health/live")
    except NotReady:
        return False
    return status == 200


def dicom_echo(host: str, port: int, ae_title: str, calling: str = "SIJIL-PROBE") -> None:
    """A whole C-ECHO (PS3.4 Annex A): association, request, success, release."""
    from pynetdicom import AE  # here: only who runs a DICOM door pays for loading it
    from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

    ae = AE(ae_title=calling)
    ae.add_requested_context(Verification)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = TIMEOUT_S
    association = ae.associate(host, port, ae_title=ae_title)
    if not association.is_established:
        raise NotReady(f"{ae_title} at {host}:{port} does not accept an association")
    try:
        status = association.send_c_echo()
    finally:
        association.release()
    if not status or status.Status != 0x0000:
        raise NotReady(f"{ae_title} at {host}:{port} does not answer C-ECHO with success")
