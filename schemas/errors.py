"""The roots of every error Sijil raises, and what each one means for the caller.

    SijilError
    ├── Transient          try again later: the same call may succeed (S3 away, queue full)
    │   └── Overloaded     a bounded queue is full; `retry_after_s` says when to come back
    ├── Permanent          never the same call again: the input is at fault (bad DICOM, schema broken)
    │   ├── Invalid        a value that cannot be what it claims to be (UID, national ID, event)
    │   ├── Unauthenticated  nobody, or a token that proves nothing
    │   ├── Forbidden      somebody who may not
    │   └── NotFound       the thing named does not exist
    └── Defect             our own promise is broken (checksum differs, chain gap): stop loudly

Messages name the step and ids (study, pack, event), never patient data.
"""


class SijilError(Exception):
    """Root of all errors of the archive."""


class Transient(SijilError):
    """The same call may succeed later."""


class Overloaded(Transient):
    """A bounded queue or disk is full. `retry_after_s` is a hint in seconds."""

    def __init__(self, message: str, retry_after_s: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Permanent(SijilError):
    """The same call can never succeed."""


class Invalid(Permanent):
    """A value is not what it claims to be; `reason` is a short code for machines and the dead letters."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class Unauthenticated(Permanent):
    """Whoever asks has not proved who they are; `reason` is a short code."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class Forbidden(Permanent):
    """Whoever asks may not have this; `reason` is a short code, `access_id` that of the record of the refusal."""

    def __init__(self, reason: str, message: str = "", *, access_id: str = "") -> None:
        super().__init__(message or reason)
        self.reason, self.access_id = reason, access_id


class NotFound(Permanent):
    """The thing named does not exist."""


class Defect(SijilError):
    """A promise of our own is broken; nothing may go on as if it were not."""
