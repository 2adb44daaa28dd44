"""The sites' letterheads, as the operator wrote them into a folder: `<folder>/<SITE>.toml`, a logo beside it."""

from __future__ import annotations

from pathlib import Path

from consumers.report_pdf.letterhead import LOGO_BYTES_MAX, Letterhead, parse
from infra import telemetry
from schemas.errors import Invalid

log = telemetry.logger(__name__)


class Letterheads:
    """Read again when a file changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[int, Letterhead]] = {}

    def of(self, site: str) -> Letterhead:
        """Of a site whose identifier was checked; an empty one where none can be read: the report is not kept back."""
        path = self._folder / f"{site}.toml"
        try:
            changed = path.stat().st_mtime_ns
            known = self._known.get(site)
            if known is None or known[0] != changed:
                known = self._known[site] = changed, self._read(path)
            return known[1]
        except OSError:
            return Letterhead()
        except (Invalid, UnicodeDecodeError):
            log.warning("a letterhead cannot be read", site=site)
            return Letterhead()

    def _read(self, path: Path) -> Letterhead:
        found = parse(path.read_text(encoding="utf-8"))
        if not found.logo_name:
            return found
        logo = path.with_name(found.logo_name)
        if not logo.is_file() or logo.stat().st_size > LOGO_BYTES_MAX:
            log.warning("a letterhead's logo is missing or larger than 1 MiB", site=path.stem)
            return found
        return Letterhead(found.name, found.address, found.phone, found.logo_name, logo.read_bytes())
