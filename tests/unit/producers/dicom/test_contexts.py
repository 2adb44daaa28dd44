"""Presentation contexts over everything that PS3.6 registers."""

from itertools import permutations

import pytest
from pydicom._uid_dict import UID_dictionary
from pynetdicom import sop_class

from producers.dicom.contexts import DATASET_SYNTAXES, VERIFICATION, accept, choose, is_storage
from producers.dicom.syntaxes import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    TRANSFER_SYNTAXES,
    encoding_of,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
J2K = "1.2.840.10008.1.2.4.90"
JPIP = "1.2.840.10008.1.2.4.94"

# Registered transfer syntaxes that are never accepted.
NEVER = {
    "1.2.840.10008.1.2.4.94",  # JPIP: the pixels are behind a URL
    "1.2.840.10008.1.2.4.95",
    "1.2.840.10008.1.2.4.204",
    "1.2.840.10008.1.2.4.205",
    "1.2.840.10008.1.2.7.1",  # SMPTE ST 2110: live streams
    "1.2.840.10008.1.2.7.2",
    "1.2.840.10008.1.2.7.3",
    "1.2.840.10008.1.2.6.1",  # MIME, XML, Papyrus: retired, not encodings of PS3.5
    "1.2.840.10008.1.2.6.2",
    "1.2.840.10008.1.20",
    "1.2.840.10008.1.2.4.110",  # JPEG XL and Deflated Image Frame: no viewer decodes them yet
    "1.2.840.10008.1.2.4.111",
    "1.2.840.10008.1.2.4.112",
    "1.2.840.10008.1.2.8.1",
}
# Registered classes of instances that the name's rule does not find.
NAMELESS = {"1.2.840.10008.5.1.4.1.1.12.77", "1.2.840.10008.5.1.4.1.1.40"}


def test_every_registered_transfer_syntax_is_taken_or_named() -> None:
    registered = {uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"}
    assert TRANSFER_SYNTAXES.keys() == registered - NEVER
    assert not TRANSFER_SYNTAXES.keys() & NEVER


@pytest.mark.parametrize("uid", sorted(UID_dictionary))
def test_every_registered_uid_as_abstract_syntax(uid: str) -> None:
    name, kind, *_ = UID_dictionary[uid]
    storage = kind == "SOP Class" and ("Storage" in name or uid in NAMELESS)
    if "Storage Commitment" in name or name == "Media Storage Directory Storage":
        storage = False
    expected = EXPLICIT_LE if storage or uid == VERIFICATION else None
    assert accept(uid, [IMPLICIT_LE, EXPLICIT_LE]) == expected


def test_every_storage_class_of_pynetdicom_is_storage_and_no_other_class_of_it() -> None:
    groups = {name: getattr(sop_class, name) for name in dir(sop_class) if name.endswith("_CLASSES")}
    del groups["_SERVICE_CLASSES"]  # of Python, not of DICOM
    storage = groups.pop("_STORAGE_CLASSES")
    assert all(is_storage(uid) for uid in storage.values())
    # Non-patient objects (hanging protocols, palettes, ...) are stored too (PS3.4 Annex GG).
    objects = groups.pop("_NON_PATIENT_OBJECT_CLASSES")
    assert all(is_storage(uid) for uid in objects.values())
    for classes in groups.values():
        assert not {uid for uid in classes.values() if is_storage(uid)} - set(storage.values()) - set(objects.values())


@pytest.mark.parametrize("uid", ["1.3.12.2.1107.5.9.1", "2.25.1234", "1.2.840.10008.5.1.4.1.1.999.1"])
def test_private_and_unknown_classes_are_storage(uid: str) -> None:
    assert accept(uid, [JPEG_LOSSLESS, EXPLICIT_LE]) == JPEG_LOSSLESS


@pytest.mark.parametrize("syntax", [*sorted(NEVER), "1.2.840.113619.5.2", "1.3.46.670589.33.1.4.1", "", "x"])
def test_unknown_syntaxes_are_passed_over_or_refused(syntax: str) -> None:
    assert accept(CT, [syntax]) is None
    assert accept(CT, [syntax, J2K, EXPLICIT_LE]) == J2K


def test_the_senders_order_counts_but_for_explicit_before_implicit() -> None:
    for offered in permutations([IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE, JPEG_LOSSLESS, JPIP]):
        first = next(syntax for syntax in offered if syntax != JPIP)
        assert accept(CT, offered) == (EXPLICIT_LE if first == IMPLICIT_LE else first)
    assert accept(CT, [IMPLICIT_LE, JPEG_LOSSLESS]) == IMPLICIT_LE
    assert accept(CT, []) is None


def test_verification_has_no_pixel_syntax() -> None:
    assert accept(VERIFICATION, [JPEG_LOSSLESS, DEFLATED_LE]) == DEFLATED_LE
    assert accept(VERIFICATION, [JPEG_LOSSLESS]) is None
    assert choose(iter([EXPLICIT_BE, IMPLICIT_LE]), DATASET_SYNTAXES) == EXPLICIT_BE


def test_encodings_are_those_of_pydicom() -> None:
    from pydicom.uid import UID

    for uid in TRANSFER_SYNTAXES:
        theirs, ours = UID(uid), encoding_of(uid)
        assert ours.explicit == (not theirs.is_implicit_VR), uid
        assert ours.little == theirs.is_little_endian, uid
        assert ours.deflated == theirs.is_deflated, uid
        assert ours.encapsulated == theirs.is_encapsulated, uid
    assert encoding_of("1.2.3.4").explicit
