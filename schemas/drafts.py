"""What somebody has written of a report that is not signed yet. Pure."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from schemas.errors import Invalid

TEXT_MAX: Final = 100_000
"""Characters of a text: a report of some fifty pages."""

_Uid = Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64)]
_Line = Annotated[str, msgspec.Meta(max_length=400)]
_Text = Annotated[str, msgspec.Meta(max_length=TEXT_MAX)]


class Draft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One author's text about one study."""

    language: Annotated[str, msgspec.Meta(pattern=r"^(ar|en)$")] = "ar"
    """What it is written in."""
    title: _Line = ""
    """The examination, as it stands above the report."""
    findings: _Text = ""
    impression: _Text = ""
    critical: bool = False
    """Somebody has to be told at once."""
    category: Annotated[str, msgspec.Meta(max_length=32)] = ""
    """BI-RADS or the like, as given."""
    conclusions: _Line = ""
    """The coded conclusion as it is typed (consumers.web.coded_conclusion)."""
    template: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{0,64}$")] = ""
    """Key of the template that was put in last."""
    report_id: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?$")] = ""
    """The report that it goes on from; empty: a new one."""
    base_version: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    """Version of that report which the text began with."""
    change: Annotated[str, msgspec.Meta(pattern=r"^(|amended|corrected|appended)$")] = ""
    """What it is to a signed version."""
    comparisons: Annotated[tuple[_Uid, ...], msgspec.Meta(max_length=64)] = ()
    """Study Instance UIDs of what it was compared with."""


def decode_draft(data: bytes | str) -> Draft:
    """Raises Invalid(`draft`), which quotes nothing."""
    try:
        return msgspec.json.decode(data, type=Draft)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Invalid("draft", f"a draft is a JSON object of {', '.join(Draft.__struct_fields__)}") from e


def encode_draft(draft: Draft) -> str:
    """As it is kept."""
    return msgspec.json.encode(draft).decode()
