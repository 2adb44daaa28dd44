"""The languages of the pages: which one is shown, and how words, numbers and times are written in it. Pure.

Identifiers (UIDs, accession numbers, PatientIDs) stay as they are in both: people read them to each other. What is put
into a sentence is isolated (U+2068, U+2069), so that a Latin name does not turn an Arabic line around.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from consumers.web.messages import ar, en

COOKIE = "sijil-language"
OPTION = "lang"
_ARABIC_DIGITS = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
_UNITS = ("", "K", "M", "G", "T")


@dataclass(frozen=True)
class Language:
    """One language of the pages."""

    code: str
    dir: str
    name: str
    """Of itself."""
    messages: Mapping[str, str]
    months: tuple[str, ...]
    comma: str
    thousands: str
    arabic_digits: bool

    def text(self, key: str, **values: object) -> str:
        """A message with its values put in. Raises KeyError for a key that is not in the table."""
        found = self.messages[key]
        return found.format(**{n: f"\u2068{v}\u2069" for n, v in values.items()}) if values else found

    def or_code(self, prefix: str, code: str) -> str:
        """The message of a code, or the code itself where the table has none: a newer producer may know more."""
        return self.messages.get(f"{prefix}.{code}", code)

    def digits(self, text: str) -> str:
        """A text's digits as the language writes them."""
        return text.translate(_ARABIC_DIGITS) if self.arabic_digits else text

    def number(self, value: int | None) -> str:
        """With separators; nothing for None."""
        return "" if value is None else self.digits(f"{value:,}".replace(",", self.thousands))

    def bytes(self, value: int | None) -> str:
        """In a unit that leaves at most four digits."""
        if value is None:
            return ""
        scaled, unit = float(value), 0
        while scaled >= 1000 and unit < len(_UNITS) - 1:
            scaled, unit = scaled / 1000, unit + 1
        shown = f"{scaled:.0f}" if scaled >= 10 or not unit else f"{scaled:.1f}"
        return f"{self.digits(shown.replace('.', '٫' if self.arabic_digits else '.'))} {self.text(f'unit.{unit}')}"

    def day(self, value: date) -> str:
        """`28 Feb 2025`, `٢٨ فبراير ٢٠٢٥`."""
        return f"{self.digits(str(value.day))} {self.months[value.month - 1]} {self.digits(str(value.year))}"

    def moment(self, value: datetime, zone: ZoneInfo, today: date) -> str:
        """Local day and time; of today the time alone, with the word."""
        local = value.astimezone(zone)
        clock = self.digits(f"{local:%H:%M}")
        said = self.text("today") if local.date() == today else self.day(local.date())
        return f"{said}{self.comma} {clock}"


LANGUAGES: Mapping[str, Language] = {
    "ar": Language(
        "ar",
        "rtl",
        "العربية",
        ar.MESSAGES,
        tuple("يناير فبراير مارس أبريل مايو يونيو يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر".split()),
        "،",
        "٬",
        arabic_digits=True,
    ),
    "en": Language(
        "en",
        "ltr",
        "English",
        en.MESSAGES,
        tuple("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()),
        ",",
        ",",
        arabic_digits=False,
    ),
}
DEFAULT = "ar"


def chosen(option: str, cookie: str, accept: str) -> Language:
    """What was asked for just now, else what is remembered, else the browser's first that there is, else Arabic."""
    for code in (option, cookie):
        if code in LANGUAGES:
            return LANGUAGES[code]
    for piece in accept.split(","):
        code = piece.partition(";")[0].strip().lower()[:2]
        if code in LANGUAGES:
            return LANGUAGES[code]
    return LANGUAGES[DEFAULT]


def other(language: Language) -> Language:
    """The one that the switch leads to."""
    return LANGUAGES["en" if language.code == "ar" else "ar"]
