"""Which file a number finds, under a secret that can be replaced. Pure.

A file keeps its key for ever: it stands on the log, in trails, links, slips and other systems. A newer secret makes
other keys of the same numbers; that a number was known before is an *alias*, newer key → key of its file, which whoever
has both secrets makes (`patient.aliased`). So:

| secrets | a number's file |
|---|---|
| one, never replaced | what the number makes under it |
| two: it is being replaced | its alias; else what the number makes under the previous one, and that is a new alias |
| one again | its alias; else it is a number that nobody knew before: what it makes |

Two secrets and the previous one alone give the same files, so processes may go over one by one. The newest alone does
so once every number has its alias (streams.retiring).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from schemas.errors import Invalid
from schemas.identity import PatientKey, generation_of, patient_key

_SECRET = re.compile(r"(?:k([1-9][0-9]{0,3}):)?((?:[0-9a-fA-F]{2})+)\Z")
_FIRST = 1


@dataclass(frozen=True)
class PatientSecret:
    """A secret of patient keys."""

    generation: int
    value: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """Tells secrets apart and says nothing of them: `k1:` and 16 hex digits."""
        return f"k{self.generation}:{hmac.new(self.value, b'sijil patient secret', hashlib.sha256).hexdigest()[:16]}"


@dataclass(frozen=True)
class PatientSecrets:
    """What the setting holds."""

    newest: PatientSecret
    previous: PatientSecret | None = None
    """While it is being replaced."""

    @classmethod
    def parse(cls, text: str) -> PatientSecrets:
        """`HEX`, `k2:HEX` or `k3:HEX,k2:HEX`, the newest first; without a generation it is the first. Raises
        Invalid.
        """
        found = []
        for part in text.split(","):
            matched = _SECRET.match(part.strip())
            if matched is None:
                raise Invalid("patient-secret", "SIJIL_PATIENT_SECRET is HEX, or k2:HEX,k1:HEX while it is replaced")
            found.append(PatientSecret(int(matched[1] or _FIRST), bytes.fromhex(matched[2])))
        newest, previous = found[0], found[1] if len(found) == 2 else None
        if len(found) > 2 or (previous is not None and previous.generation >= newest.generation):
            raise Invalid("patient-secret", "SIJIL_PATIENT_SECRET has at most two secrets, the newest first")
        return cls(newest, previous)

    def __str__(self) -> str:
        """As the setting holds it."""
        return ",".join(f"k{s.generation}:{s.value.hex()}" for s in (self.newest, self.previous) if s is not None)

    def replaced(self, value: bytes) -> PatientSecrets:
        """With a new secret. Raises Invalid while the one before is still there."""
        if self.previous is not None:
            raise Invalid("patient-secret-replaced", "it is being replaced: `sijil retire-patient-secret` ends that")
        return PatientSecrets(PatientSecret(self.newest.generation + 1, value), self.newest)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """The newest first."""
        return tuple(s.fingerprint for s in (self.newest, self.previous) if s is not None)


class Keys:
    """Numbers → patient keys, for one run of a function that makes them, with the aliases known by then.

    A run that leaves something in `missing` is to be repeated with that known (infra.patient_keys).
    """

    def __init__(self, secrets: PatientSecrets, known: Mapping[str, str]) -> None:
        """`known`: key → key of its file; "" for one that is known to be no alias."""
        self._secrets, self._known = secrets, known
        self.missing: set[str] = set()
        """Keys of which it has to be known whether they are aliases."""
        self.aliases: dict[str, str] = {}
        """Aliases that are new: key → key of its file."""

    def of(self, *, patient_id: str, issuer: str, birth_date: str, sex: str, study_uid: str) -> PatientKey:
        """See `schemas.identity.patient_key`."""

        def under(secret: PatientSecret) -> PatientKey:
            return patient_key(
                secret.value,
                secret.generation,
                patient_id=patient_id,
                issuer=issuer,
                birth_date=birth_date,
                sex=sex,
                study_uid=study_uid,
            )

        made = under(self._secrets.newest)
        if file := self._file(made.value):
            return replace(made, value=file)
        if self._secrets.previous is None:
            return made
        was = under(self._secrets.previous).value
        file = self._file(was) or was
        self.aliases[made.value] = file
        return replace(made, value=file)

    def _file(self, key: str) -> str:
        if generation_of(key) == _FIRST:  # there was none before
            return ""
        found = self._known.get(key)
        if found is None:
            self.missing.add(key)
        return found or ""
