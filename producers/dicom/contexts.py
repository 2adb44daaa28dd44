"""Which presentation contexts the DICOM door accepts as storage or verification (PS3.8 §9.3.3, PS3.4 Annexes A and B).

One rule over the table of `syntaxes.py`: the first transfer syntax in the sender's order that the table has, but
Explicit VR Little Endian before Implicit VR Little Endian, which loses the value representations. Unknown and private
SOP classes are storage: an archive keeps what modalities make. What PS3.6 registers for other services is not.
"""

from collections.abc import Iterable
from typing import Final

from pydicom._uid_dict import UID_dictionary

from producers.dicom.syntaxes import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, TRANSFER_SYNTAXES

VERIFICATION: Final = "1.2.840.10008.1.1"

# What a context without pixel data may be sent in: Verification here, and the other services of the same door.
DATASET_SYNTAXES: Final = frozenset({EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE})
_STORAGE_SYNTAXES: Final = frozenset(TRANSFER_SYNTAXES)

# Named "Storage" in PS3.6 but no class of instances to store.
_NAMED_STORAGE: Final = frozenset(
    {
        "1.2.840.10008.1.3.10",  # Media Storage Directory Storage: a DICOMDIR is no instance
        "1.2.840.10008.1.20.1",  # Storage Commitment Push Model
        "1.2.840.10008.1.20.2",  # Storage Commitment Pull Model
        "1.2.840.10008.4.2",  # Storage Service Class
    }
)
_STORAGE_ROOT: Final = "1.2.840.10008.5.1.4.1.1."


def _registered_storage(uid: str, name: str, kind: str) -> bool:
    # Two retired entries of the storage arc have lost their names in PS3.6.
    return kind == "SOP Class" and (
        ("Storage" in name and uid not in _NAMED_STORAGE) or (not name and uid.startswith(_STORAGE_ROOT))
    )


STORAGE_CLASSES: Final = frozenset(
    uid for uid, (name, kind, *_) in UID_dictionary.items() if _registered_storage(uid, name, kind)
)


def is_storage(abstract_syntax: str) -> bool:
    """Whether instances of `abstract_syntax` are stored: unless PS3.6 registers it for something else, they are."""
    # Looked up each time: pynetdicom adds UIDs to the dictionary when it is imported.
    return abstract_syntax in STORAGE_CLASSES or abstract_syntax not in UID_dictionary


def choose(offered: Iterable[str], allowed: frozenset[str] = _STORAGE_SYNTAXES) -> str | None:
    """The transfer syntax to answer with, out of `offered` in the sender's order; None when none is allowed."""
    offers = list(offered)
    first = next((syntax for syntax in offers if syntax in allowed), None)
    return EXPLICIT_LE if first == IMPLICIT_LE and EXPLICIT_LE in offers and EXPLICIT_LE in allowed else first


def accept(abstract_syntax: str, offered: Iterable[str]) -> str | None:
    """The transfer syntax in which the context is accepted, or None to refuse it.

    A refused context of several is how a sender learns to fall back to another syntax (PS3.8 §9.3.3.2).
    """
    if abstract_syntax == VERIFICATION:
        return choose(offered, DATASET_SYNTAXES)
    return choose(offered) if is_storage(abstract_syntax) else None
