"""Everything that can be set, once: name, default, help. Read in `main`, passed in, never looked up elsewhere.

A value comes from, first found wins: the environment (`SIJIL_HTTP_PORT`), the role's secrets
(`<home>/secrets/<role>.env`, mode 0600), what the local stack was started with (`<home>/stack.env`), the default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from schemas.errors import Permanent

ENV_PREFIX = "SIJIL_"

Role = Literal["admin", "gateway", "api", "hl7", "worker", "archiver", "delivery", "operator", "analytics"]
"""Who a process is: decides which secrets it may read."""

ROLES: tuple[Role, ...] = get_args(Role)


class SettingsError(Permanent):
    """A setting cannot be read; the message names it and says what it should be."""


_HOME = Path(".sijil")


def _s(default: Any, help: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"help": help, "secret": secret})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One process's settings. Ports are TCP ports, sizes bytes, times seconds unless the name says otherwise."""

    home: Path = _s(_HOME, "folder of this installation's data, logs, pid files and secrets")
    site: str = _s("LOCAL", "identifier of the site this gateway stands in")
    instance: str = _s("1", "number of this process among those of its role at its site")

    # doors
    http_host: str = _s("127.0.0.1", "address the HTTP door binds to")
    http_port: int = _s(8080, "port of the HTTP door (DICOMweb, reports, everything of the API)")
    viewer_port: int = _s(8090, "port of the viewer, at the HTTP door's address")
    http_public_url: str = _s("", "URL of the HTTP door as clients see it, for links in answers; empty: as they asked")
    critical_contacts: str = _s(
        "", "comma-separated person ids who are told of critical results when those whom a report names do not answer"
    )
    critical_minutes: int = _s(60, "how long each contact of a critical result has to read it back")
    time_zone: str = _s("Africa/Cairo", "time zone of the times that pages show (IANA name)")
    letterhead_dir: str = _s(
        "", "folder of the sites' letterheads for printed reports, <SITE>.toml; empty: <home>/letterheads"
    )
    loopback_role: str = _s(
        "", "role of callers from this machine without credentials (local: everything); empty: nobody is let in so"
    )
    http_trusted_proxies: str = _s(
        "", "comma-separated addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed"
    )
    https_host: str = _s("127.0.0.1", "address the HTTPS ports bind to")
    https_port: int = _s(8443, "port of the HTTP door with TLS; open once https_certificate is set")
    viewer_https_port: int = _s(8493, "port of the viewer with TLS")
    https_certificate: str = _s("", "PEM file of the door's certificate and those between it and its CA; empty: no TLS")
    https_key: str = _s("", "PEM file of the certificate's private key")
    http_connections_max: int = _s(2000, "HTTP connections at the same time; 0: no limit")
    http_connections_max_address: int = _s(256, "HTTP connections of one address at the same time; 0: no limit")
    rate_reads: float = _s(2000.0, "reads per second of one caller, ten seconds' worth at once; 0: no limit")
    rate_changes: float = _s(20.0, "changes per second of one caller, likewise; stores are not counted here")
    rate_stores: float = _s(1000.0, "STOW-RS requests per second of one caller, likewise")
    rate_anonymous: float = _s(20.0, "reads per second of one address without a caller, likewise")
    rate_logins: float = _s(2.0, "posts per second of one address without a caller, likewise")
    dicom_host: str = _s("127.0.0.1", "address the DICOM door binds to")
    dicom_port: int = _s(11112, "port of the DICOM door")
    dicom_tls_host: str = _s("127.0.0.1", "address the DICOM door with TLS binds to")
    dicom_tls_port: int = _s(2762, "port of the DICOM door with TLS; open once dicom_tls_certificate is set")
    dicom_tls_certificate: str = _s("", "PEM file of the door's certificate and those between it and its CA")
    dicom_tls_key: str = _s("", "PEM file of the certificate's private key")
    dicom_tls_ca: str = _s("", "PEM file of the CAs whose certificates callers must have; needed for DICOM with TLS")
    ae_title: str = _s("SIJIL", "AE title of the DICOM door")
    health_host: str = _s("127.0.0.1", "address of the health and metrics ports of processes without an HTTP door")
    gateway_health_port: int = _s(8081, "health and metrics port of the gateway")
    worker_health_port: int = _s(8082, "health and metrics port of the worker")
    archiver_health_port: int = _s(8083, "health and metrics port of the archiver")

    # deliveries
    delivery_health_port: int = _s(8084, "health and metrics port of the delivery process")
    delivery_since: str = _s(
        "", "a destination that is new is told what the log took from this time on (RFC 3339); empty: all of it"
    )

    hl7_host: str = _s("127.0.0.1", "address the HL7 door binds to")
    hl7_port: int = _s(2575, "port of the HL7 door (MLLP)")
    hl7_tls_host: str = _s("127.0.0.1", "address the HL7 door with TLS binds to")
    hl7_tls_port: int = _s(2576, "port of the HL7 door with TLS; open once hl7_tls_certificate is set")
    hl7_tls_certificate: str = _s("", "PEM file of the door's certificate and those between it and its CA")
    hl7_tls_key: str = _s("", "PEM file of the certificate's private key")
    hl7_tls_ca: str = _s("", "PEM file of the CAs whose certificates senders must have; needed for HL7 with TLS")
    hl7_message_mb: int = _s(32, "largest HL7 message")
    hl7_connections_max: int = _s(128, "MLLP connections at the same time")
    hl7_connections_max_address: int = _s(32, "MLLP connections of one address at the same time")
    hl7_processing: str = _s("P", "processing id (MSH-11) that is taken in: P production, T training, D debugging")
    hl7_health_port: int = _s(8085, "health and metrics port of the HL7 door")
    oru_receiver: str = _s("", "host:port of a receiver of reports as HL7 v2 ORU by MLLP; empty: none is told")
    oru_ca_file: str = _s("", "PEM file of the CA of its certificate; empty: no TLS")
    oru_timeout_s: float = _s(30.0, "longest it may take to acknowledge")
    ehr_url: str = _s("", "base URL of the health record's FHIR R4 server; empty: none is told")
    ehr_token: str = _s("", "bearer token for it (delivery)", secret=True)
    ehr_ca_file: str = _s("", "PEM file of the CA of its certificate; empty: the system's")
    ehr_timeout_s: float = _s(30.0, "longest a call of it may take")
    ehr_patient_system: str = _s("urn:sijil:eg:national-id", "what it calls the system of Egypt's national ID")
    ehr_create_patients: int = _s(0, "1: a patient whom it does not know is created there; 0: waits in the list")
    subscription_ca_file: str = _s("", "PEM file of the CAs of subscriptions' endpoints; empty: the system's")

    # Kafka
    kafka_bootstrap: str = _s("", "Kafka bootstrap servers; empty: the local stack's")
    kafka_security_protocol: str = _s("PLAINTEXT", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL")
    kafka_sasl_mechanism: str = _s("", "for example SCRAM-SHA-512")
    kafka_username: str = _s("", "SASL user")
    kafka_password: str = _s("", "SASL password", secret=True)
    kafka_ca_file: str = _s("", "PEM file of the CA that signed the brokers' certificates")
    kafka_replication: int = _s(1, "replication factor of our topics")
    kafka_partitions: int = _s(6, "partitions of each topic when it is made; never changed afterwards")
    kafka_flush_messages: int = _s(
        1, "flush.messages of our topics; 1 where the broker has no replica; 0: the broker's own"
    )

    # Cassandra
    cassandra_contact_points: str = _s("127.0.0.1", "comma-separated addresses")
    cassandra_port: int = _s(9042, "native protocol port")
    cassandra_local_dc: str = _s("datacenter1", "the data centre this process talks to")
    cassandra_replication: int = _s(1, "replication factor of our keyspaces in the local data centre")
    cassandra_consistency: str = _s("LOCAL_ONE", "LOCAL_QUORUM in production, LOCAL_ONE on one node")
    cassandra_username: str = _s("", "role of this process")
    cassandra_password: str = _s("", "its password", secret=True)
    cassandra_ca_file: str = _s("", "PEM file of the CA; empty: no TLS")

    # S3
    s3_endpoint: str = _s("", "URL of the S3 service; empty: the local stack's")
    s3_region: str = _s("us-east-1", "region name")
    s3_access_key: str = _s("", "access key of this process")
    s3_secret_key: str = _s("", "its secret", secret=True)
    s3_ca_file: str = _s("", "PEM file of the CA that signed the certificate of S3; empty: the usual ones")
    bucket_packs: str = _s("sijil-packs", "hot packs and manifests")
    bucket_archive: str = _s("sijil-archive", "locked copies of packs")
    bucket_documents: str = _s("sijil-documents", "reports, dead-letter payloads, access lists")
    bucket_anchors: str = _s("sijil-anchors", "heads of the event chains")

    # secrets of the archive
    patient_secret: str = _s(
        "",
        "hex; key of the HMAC that makes patient keys (worker and hl7); k2:HEX,k1:HEX while a newer replaces it",
        secret=True,
    )
    search_secret: str = _s("", "hex; key of the HMAC over what was searched for (api and gateway)", secret=True)
    dead_letter_key: str = _s(
        "", "hex, 32 bytes; AES-256-GCM key of dead-letter payloads (worker, operator)", secret=True
    )

    # who calls
    oidc_issuer: str = _s(
        "", "issuer URL of the OIDC provider; empty: the embedded issuer, on a door that is bound to loopback alone"
    )
    oidc_audience: str = _s("sijil", "audience (aud) of access tokens for this archive")
    oidc_client_id: str = _s("sijil-web", "client id of the web pages at the OIDC provider")
    oidc_client_secret: str = _s("", "its secret, where the provider wants one beside PKCE", secret=True)
    oidc_resource: str = _s(
        "", "resource (RFC 8707) that the web pages ask an access token for, where the provider wants one named"
    )
    oidc_scopes: str = _s("openid profile offline_access", "scopes that the web pages ask for")
    oidc_role_claim: str = _s("sijil_role", "claim with the role, or the list of roles")
    oidc_sites_claim: str = _s("sijil_sites", "claim with the list of sites")
    oidc_person_claim: str = _s("sijil_person", "claim with the person id; missing: made from issuer and subject")
    oidc_patient_claim: str = _s("sijil_patient", "claim with a patient's own patient key")
    oidc_purpose_claim: str = _s("sijil_purpose", "claim with the purpose of use when a request states none")
    token: str = _s(
        "", "bearer token of commands that call the HTTP door; empty: one of the embedded issuer", secret=True
    )
    session_hours: float = _s(10.0, "longest a log-in of a browser lasts")
    subscription_secret: str = _s(
        "", "hex; key that seals the headers of subscriptions' channels (api and delivery)", secret=True
    )
    session_secret: str = _s(
        "", "hex, 32 bytes; seals the sessions' tokens (api); empty: one of this process", secret=True
    )
    emergency_hours: float = _s(24.0, "how long somebody who stated an emergency is let in")

    # messages and patients
    sms_url: str = _s("", "URL of an SMS gateway that takes POST {to, text}; empty: into <home>/outbox/sms")
    sms_token: str = _s("", "bearer token of the SMS gateway", secret=True)
    smtp_host: str = _s("", "mail server for e-mail, HOST or HOST:PORT (587); empty: into <home>/outbox/email")
    smtp_security: str = _s("starttls", "starttls, tls (from the start) or none (a server on this machine)")
    smtp_user: str = _s("", "user at the mail server; empty: none is asked for")
    smtp_password: str = _s("", "its password", secret=True)
    mail_from: str = _s("sijil@localhost", "sender of e-mail")
    phone_country: str = _s("20", "country code of telephone numbers that name none")
    invitation_hours: float = _s(72.0, "how long a patient's link can be opened, unless it is said when it is issued")
    patient_session_minutes: float = _s(30.0, "longest a patient who opened a link is let in")

    # spool and packs
    spool_dir: str = _s("", "folder of the spool; empty: <home>/data/spool/<role>")
    spool_low_free_mb: int = _s(2048, "first watermark: below this much free disk new work is refused for a while")
    spool_full_free_mb: int = _s(512, "second watermark: below this much free disk instances are refused (A700, 503)")
    spool_max_mb: int = _s(20480, "most the spool may hold, committed packs included; the cache is evicted before")
    spool_cache_hours: float = _s(24.0, "committed packs stay in the spool at least this long, disk allowing")
    quarantine_max_mb: int = _s(512, "most the quarantine folder may hold; the oldest go first")
    pack_seal_mb: int = _s(32, "an open pack is sealed at this size")
    pack_own_mb: int = _s(1024, "an instance above this size becomes a pack of its own")
    pack_idle_s: float = _s(2.0, "an open pack is sealed after this long without a new instance")
    pack_release_s: float = _s(
        0.5, "an open pack is sealed this long after the last association or request that fed it"
    )
    upload_threads: int = _s(2, "packs uploaded at the same time")
    body_buffer_mb: int = _s(8, "a body larger than this, or of unknown length, is streamed to a file first")
    max_associations: int = _s(64, "DICOM associations at the same time")
    max_outgoing_associations: int = _s(16, "associations that this archive itself has open at the same time")
    commitment_grace_s: float = _s(
        30.0, "an instance that nobody knows is waited for so long before a storage commitment calls it never received"
    )
    commitment_days: float = _s(7.0, "how long a storage commitment is worked on, and its report tried to be delivered")

    # chain
    chain_backlog_max: int = _s(200_000, "unacknowledged events a process may hold before it refuses new ones")
    anchor_interval_s: float = _s(120.0, "how often the head of the chain is anchored in S3")

    # worker
    quiet_s: float = _s(60.0, "a study is complete after this long without a new instance")
    step_open_s: float = _s(
        3600.0, "the same while a device has said by MPPS that it began an examination, and not that it has ended"
    )
    projection_batch: int = _s(500, "most events of a projector's batch")
    manifest_wait_s: float = _s(
        10.0, "how long an object that an event names may be missing before it is taken for lost"
    )
    retention_years: int = _s(5, "least time a study is kept")
    archive_calm_s: float = _s(5.0, "packs are copied into the archive once nothing has arrived for this long")

    # api
    access_window_s: float = _s(60.0, "one access.granted covers reads of (actor, study, purpose) for this long")
    read_wait_s: float = _s(5.0, "longest a read waits for what its read token names")
    query_limit_max: int = _s(1000, "most rows of one QIDO-RS answer")
    query_deadline_s: float = _s(10.0, "longest a query may take before it answers with what it has and a cursor")
    query_explain: int = _s(0, "1: a search with the header Sijil-Explain is answered with its plan as well")

    # local stack
    port_offset: int = _s(0, "added to every port that is not set: a second installation on this machine")
    stack_jars: str = _s("", "folder of the servers' jars; empty: <home>/jars")
    stack_viewer: str = _s("", "folder of the viewer; empty: <home>/viewer")
    stack_kafka_port: int = _s(9092, "port of the local Kafka")
    stack_kafka_controller_port: int = _s(9093, "port of its KRaft controller")
    stack_cassandra_storage_port: int = _s(7000, "storage port of the local Cassandra")
    stack_s3_port: int = _s(8333, "port of the local S3")
    stack_s3_base_port: int = _s(19330, "first of seven ports for SeaweedFS' master, volume and filer and their gRPC")
    stack_tls: int = _s(0, "1: TLS also between our processes and the local stack's servers, by a trial CA")
    stack_min_disk_mb: int = _s(3072, "least free disk to start with")
    stack_min_memory_mb: int = _s(2500, "least available memory to start with")
    log_level: str = _s("INFO", "DEBUG, INFO, WARNING or ERROR")

    def __post_init__(self) -> None:
        if not self.kafka_bootstrap:
            object.__setattr__(self, "kafka_bootstrap", f"127.0.0.1:{self.stack_kafka_port}")
        if not self.s3_endpoint:
            scheme = "https" if self.stack_tls else "http"
            object.__setattr__(self, "s3_endpoint", f"{scheme}://127.0.0.1:{self.stack_s3_port}")
        if self.stack_tls:
            self._local_tls()

    def _local_tls(self) -> None:
        """What reaches the local stack's servers once they speak TLS; servers elsewhere have settings of their own."""
        ca = str(self.home / "tls" / "ca.pem")
        given: dict[str, str] = {}
        if self.kafka_bootstrap == f"127.0.0.1:{self.stack_kafka_port}":
            given["kafka_security_protocol"] = self.kafka_security_protocol.replace("PLAINTEXT", "SSL")
            given["kafka_ca_file"] = ca
        if self.cassandra_contact_points == "127.0.0.1":
            given["cassandra_ca_file"] = ca
        if self.s3_endpoint == f"https://127.0.0.1:{self.stack_s3_port}":
            given["s3_ca_file"] = ca
        for name, value in given.items():
            object.__setattr__(self, name, value)

    @classmethod
    def load(cls, role: Role, environ: Mapping[str, str] | None = None) -> Settings:
        """Settings of a process of `role`. Raises SettingsError for a value of the wrong kind."""
        env = os.environ if environ is None else environ
        home = Path(env.get(ENV_PREFIX + "HOME") or ".sijil").absolute()
        layers: dict[str, str] = {}
        for file in (home / "stack.env", home / "secrets" / f"{role}.env"):
            layers.update(read_env_file(file))
        layers.update({k: v for k, v in env.items() if k.startswith(ENV_PREFIX)})
        layers[ENV_PREFIX + "HOME"] = str(home)
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for f in fields(cls):
            text = layers.get(ENV_PREFIX + f.name.upper())
            if text is not None:
                values[f.name] = _convert(f.name, hints[f.name], text)
        offset = values.get("port_offset", 0)
        for f in fields(cls):
            if f.name.endswith("_port") and f.name not in values:
                values[f.name] = f.default + offset
        return cls(**values)

    @property
    def jars(self) -> Path:
        """Where the jars of the local servers are."""
        return Path(self.stack_jars) if self.stack_jars else self.home / "jars"

    @property
    def viewer(self) -> Path:
        """Where the viewer is."""
        return Path(self.stack_viewer) if self.stack_viewer else self.home / "viewer"

    @property
    def image_library(self) -> Path:
        """Where the library is with which patients see their images."""
        return self.viewer / "cornerstone"

    def spool(self, role: str) -> Path:
        """The spool folder of this process."""
        return Path(self.spool_dir) if self.spool_dir else self.home / "data" / "spool" / role

    def chain(self, role: str) -> Path:
        """The folder of this process's event chain (journal and head)."""
        return self.home / "data" / "chain" / role

    @property
    def public_url(self) -> str:
        """Where others reach the HTTP door, without a slash at the end."""
        return self.http_public_url.rstrip("/") or f"http://{self.http_host}:{self.http_port}"

    @property
    def letterheads(self) -> Path:
        """Where the sites' letterheads are."""
        return Path(self.letterhead_dir) if self.letterhead_dir else self.home / "letterheads"

    @property
    def quarantine(self) -> Path:
        """Where refused bytes are kept."""
        return self.home / "data" / "quarantine"


def _convert(name: str, kind: Any, text: str) -> Any:
    try:
        return kind(text)
    except ValueError as e:
        raise SettingsError(f"{ENV_PREFIX}{name.upper()} must be {kind.__name__}, not {text!r}") from e


def read_env_file(path: Path) -> dict[str, str]:
    """`NAME=value` lines; none if the file does not exist."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.partition("=") for line in lines if line.strip() and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


@dataclass(frozen=True)
class SettingInfo:
    """One line of the settings' documentation."""

    env: str
    default: str
    help: str
    secret: bool


SETTINGS: tuple[SettingInfo, ...] = tuple(
    SettingInfo(
        ENV_PREFIX + f.name.upper(),
        "" if f.default is MISSING else str(f.default),
        f.metadata["help"],
        f.metadata["secret"],
    )
    for f in fields(Settings)
)
