"""What this room says in the conformance statement: the services that take something in."""

from __future__ import annotations

from typing import Final

from infra.conformance import Service
from producers.commitment.transaction import PUSH_MODEL, REASONS
from producers.dicom import commitment, performed_step
from producers.refusals import OUT_OF_RESOURCES, PROCESSING_FAILURE, REFUSALS, SUCCESS
from producers.stow import commitment as web_commitment

SERVICES: Final = (
    Service("Verification", "PS3.4 Annex A", "SCP", "C-ECHO is answered with success.", {0x0000: "success"}),
    Service(
        "Storage",
        "PS3.4 Annex B",
        "SCP",
        "Level 2 (full). Success is answered when the instance is durable on disk. Datasets are stored as they came,"
        " also of private SOP classes; nothing is coerced. The same instance with the same content is a success and"
        " stored once; with other content both are stored, and the conflict is listed for an administrator.",
        {
            SUCCESS: "durable",
            PROCESSING_FAILURE: "a fault of the archive's own: send again",
            OUT_OF_RESOURCES: "the spool's disk is full: send again later",
            **{r.status: r.text for r in REFUSALS.values()},
        },
    ),
    Service(
        "Storage Commitment Push Model",
        "PS3.4 Annex J",
        "SCP",
        "N-ACTION is answered when the request is durable. The packs that have the instances are sealed and stored in"
        " S3, and their events acknowledged by Kafka; then the result is reported, on the association on which the AE"
        " last asked if it is still open, else on a new one to its address in the AE table. Delivery is tried with"
        " growing waits for `SIJIL_COMMITMENT_DAYS`, over restarts. Retrieve AE Title is this archive's.",
        commitment.STATUSES,
        extended_negotiation="On associations that it opens, role selection: SCP role proposed, SCU role not.",
        proposes=((f"`{PUSH_MODEL}`", "Explicit VR Little Endian, Implicit VR Little Endian; SCP"),),
        notes=(
            *(f"Failure Reason {code:04X}: {text}." for code, text in REASONS.items()),
            "An instance that nobody knows is waited for `SIJIL_COMMITMENT_GRACE_S`, and until the tables have every"
            " event of that time, before it is called never received.",
            "Copies that conflict are all kept, so they are committed.",
            "Instances are kept for the retention period, at least `SIJIL_RETENTION_YEARS` years, under Object Lock.",
            "Storage Media File-Set ID and UID are not supported.",
        ),
    ),
    Service(
        "Modality Performed Procedure Step",
        "PS3.4 Annex F",
        "SCP",
        "N-CREATE and N-SET are answered when what they say is durable. Attributes of type 1 are checked at N-CREATE,"
        " end date and time at the N-SET that ends a step; other attributes, also private ones, are kept as they came.",
        performed_step.STATUSES,
        notes=(
            "A step belongs to the studies of its Scheduled Step Attributes Sequence, and to orders by study UID or by"
            " (site, accession number). N-SET may come as often as a device likes until COMPLETED or DISCONTINUED.",
            "While a step is in progress its study is not called complete, for `SIJIL_STEP_OPEN_S` at most; when every"
            " step has ended and all instances that they list have arrived, it is complete at once.",
            "N-GET (MPPS Retrieve) and MPPS Notification are not supported.",
        ),
    ),
    Service(
        "Store (STOW-RS)",
        "PS3.18 §10.5",
        "origin server",
        "multipart/related of application/dicom, application/dicom+json with bulk data, and a single application/dicom;"
        " the answer comes when every instance is durable or refused.",
        {
            200: "all instances are stored",
            202: "some are stored; the answer says which are not, and why",
            400: "the request is not valid and nothing was stored",
            406: "the answer is application/dicom+json",
            409: "no instance was stored; the answer says why",
            413: "too large, or too many instances",
            415: "not a media type that is stored",
            503: "the spool's disk is nearly full: come back after Retry-After seconds",
        },
    ),
    Service(
        "Storage Commitment",
        "PS3.18 §13",
        "origin server",
        "The request names instances flat or by study and series, and is answered in the same form; a result stays for"
        " `SIJIL_COMMITMENT_DAYS`. Failure Reasons are those of the Push Model.",
        web_commitment.STATUSES,
    ),
)
