"""pydicom is the oracle here: what it warns of in a file is not what these tests are about."""

from collections.abc import Iterator

import pytest
from pydicom import config


@pytest.fixture(autouse=True, scope="package")
def lenient_pydicom() -> Iterator[None]:
    """Read and write anything without a word."""
    patch = pytest.MonkeyPatch()
    patch.setattr(config.settings, "reading_validation_mode", config.IGNORE)
    patch.setattr(config.settings, "writing_validation_mode", config.IGNORE)
    patch.setattr(config.logger, "disabled", True)
    yield
    patch.undo()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Its warnings carry values of the files; everybody else's stay errors."""
    for item in items:
        if "producers/dicom" in item.nodeid:
            item.add_marker(pytest.mark.filterwarnings("ignore::UserWarning:pydicom"))
