"""The suites that every implementation of a port passes; each says what a port promises."""

import pytest

pytest.register_assert_rewrite("tests.contracts.log", "tests.contracts.objects", "tests.contracts.tables")
