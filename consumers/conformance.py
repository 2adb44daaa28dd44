"""What this room says in the conformance statement: the services that give something out."""

from __future__ import annotations

from typing import Final

from consumers.dicom import find
from consumers.dicom.move import OF_ONE_DESTINATION
from consumers.dicom.retrieval import CANCELLED, DESTINATION_UNKNOWN, STATUSES
from consumers.dicom.worklist_query import DAYS_AHEAD, DAYS_BACK, DAYS_MAX
from infra.conformance import Service

_HIERARCHICAL = (
    "Hierarchical method: unique keys of the level and of all above it; Patient Root needs the PatientID at its own"
    " level and checks it at the others. Lists of UIDs at every level. Relational retrieval is not supported.",
    "An instance leaves in the transfer syntax in which it is stored where that is accepted; else as Explicit VR Little"
    " Endian, pixel data losslessly decoded; else as Implicit VR Little Endian; else its sub-operation fails.",
    "Of copies that conflict the served one leaves. The access is recorded before the first byte.",
)

SERVICES: Final = (
    Service(
        "Query/Retrieve: C-FIND",
        "PS3.4 §C.4.1",
        "SCP",
        "Patient Root and Study Root, with the matching of QIDO-RS. Answers are in the character set of the query where"
        " it can write them, else in UTF-8.",
        {
            find.SUCCESS: "no more matches",
            find.CANCELLED: "cancelled by C-CANCEL",
            find.PENDING: "a match",
            find.PENDING_UNSUPPORTED: "a match; an optional key of the query is not supported",
            find.OUT_OF_RESOURCES: "the tables are away, or the access could not be recorded",
            find.IDENTIFIER_WRONG: "the identifier cannot be read, or lacks a unique key",
            find.UNABLE: "a fault of the archive's own",
            find.REFUSED: "the purpose does not allow it; the refusal is recorded",
        },
        extended_negotiation="Relational queries, combined date-time matching and fuzzy matching, as proposed.",
    ),
    Service(
        "Basic Worklist Management: C-FIND",
        "PS3.4 Annex K",
        "SCP",
        "Modality Worklist of the orders of the device's own site (AE table). An order leaves the list when a performed"
        " procedure step of it is COMPLETED, when its study is complete, and when it is cancelled or ended.",
        {
            find.SUCCESS: "no more matches",
            find.CANCELLED: "cancelled by C-CANCEL",
            find.PENDING: "a match",
            find.PENDING_UNSUPPORTED: "a match; an optional key of the query is not supported for matching",
            find.OUT_OF_RESOURCES: "the tables are away, the access could not be recorded, or too many orders",
            find.IDENTIFIER_WRONG: f"the identifier cannot be read, or is about more than {DAYS_MAX} days",
            find.UNABLE: "a fault of the archive's own",
            find.REFUSED: "the AE's role does not see orders; the refusal is recorded",
        },
        notes=(
            f"Without a start date the days from {DAYS_BACK} before today to {DAYS_AHEAD} ahead are searched; by"
            " accession number alone, all. An open range ends as far from its one end.",
            "An order that any station may do is answered as the asking station's, and for one without a time the time"
            " at which it was written stands. Start date and time as ranges are matched together.",
            "Requested Procedure ID and Scheduled Procedure Step ID are the accession number; Study Instance UID is the"
            " one by which the archive expects the study. Names are given in all their component groups.",
        ),
    ),
    Service(
        "Query/Retrieve: C-MOVE",
        "PS3.4 §C.4.2",
        "SCP",
        "Patient Root and Study Root. Destinations are the AEs of the AE table that have a port; an association to each"
        f" is opened by this archive, at most 1/{OF_ONE_DESTINATION} of all its places for one destination. Pending"
        " responses tell the counts twice a second.",
        STATUSES,
        extended_negotiation="Not supported; an offer of it is not answered.",
        notes=_HIERARCHICAL,
    ),
    Service(
        "Query/Retrieve: C-GET",
        "PS3.4 §C.4.3",
        "SCP",
        "Patient Root and Study Root. Instances are stored on the contexts of the same association for which the peer"
        " has proposed the SCP role.",
        {code: text for code, text in STATUSES.items() if code != DESTINATION_UNKNOWN},
        extended_negotiation="Role selection: the SCP role of the requestor is accepted for storage SOP classes.",
        notes=_HIERARCHICAL,
    ),
    Service(
        "Storage (sub-operations of C-MOVE)",
        "PS3.4 Annex B",
        "SCU",
        "C-STORE with Move Originator. A warning status counts as a warning, every other but success as a failure. An"
        " association that breaks is opened again up to three times for one request.",
        {CANCELLED: "not sent on: C-CANCEL ends the sub-operations after the one under way"},
        proposes=(
            (
                "the SOP class of each instance",
                "a context each for the stored transfer syntax, Explicit VR Little Endian and Implicit VR Little"
                " Endian; SCU",
            ),
        ),
    ),
    Service(
        "Query (QIDO-RS)",
        "PS3.18 §10.6",
        "origin server",
        "At the levels of study, series and instance.",
        {
            200: "found",
            204: "nothing matches",
            400: "a parameter is not valid",
            403: "the purpose of use does not allow it",
            503: "the tables are away, or the access could not be recorded",
        },
    ),
    Service(
        "Retrieve (WADO-RS)",
        "PS3.18 §10.4",
        "origin server",
        "Without a transfer-syntax parameter Explicit VR Little Endian, losslessly decoded; `*`: as stored, except that"
        " Implicit VR and Big Endian are sent as Explicit VR Little Endian (PS3.18 §8.7.3)."
        " `…/original`: the stored bytes.",
        {
            200: "found",
            206: "a range of it",
            304: "not modified",
            400: "a parameter is not valid",
            403: "the purpose of use does not allow it",
            404: "not there",
            406: "it cannot leave in a form that the client takes",
            503: "a part is away, or the access could not be recorded",
        },
    ),
)
