"""Requests made from the OpenAPI document, right ones and wrong ones: none may be a fault of the door, none may hang.

schemathesis makes them; Hypothesis' randomness is fixed, so every run is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import BaseSchema

NOT_HERE = frozenset({"/changes/events"})
"""An answer without an end has tests of its own."""
Ask = Callable[[Case[Any]], int]
BOTH = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
EXAMPLES = 2
"""Of each operation and mode."""


def cases(
    schema: BaseSchema, known: Mapping[str, str], modes: Sequence[GenerationMode] = BOTH
) -> list[tuple[str, st.SearchStrategy[Case[Any]]]]:
    """(operation, requests for it): right ones, wrong ones, and right ones about what there is (`known` path parts)."""
    found = []
    for result in schema.get_all_operations():
        if not isinstance(result, Ok):
            raise AssertionError(f"the description is wrong: {result.err()}")
        operation = result.ok()
        if operation.path in NOT_HERE:
            continue
        for mode in modes:
            found.append((f"{operation.label} {mode.value}", operation.as_strategy(generation_mode=mode)))
        parts = {name: value for name, value in known.items() if f"{{{name}}}" in operation.path}
        if parts:
            found.append((f"{operation.label} known", operation.as_strategy(path_parameters=parts)))
    return found


def run(
    schema: BaseSchema, ask: Ask, known: Mapping[str, str], modes: Sequence[GenerationMode] = BOTH
) -> dict[str, list[int]]:
    """Operation → statuses of its answers."""
    statuses: dict[str, list[int]] = {}
    for label, requests in cases(schema, known, modes):
        _each(label, requests, ask, statuses.setdefault(label, []))
    return statuses


def _each(
    label: str, requests: st.SearchStrategy[Case[Any]], ask: Callable[[Case[Any]], int], statuses: list[int]
) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests)
    def one(case: Case[Any]) -> None:
        statuses.append(ask(case))
        assert statuses[-1] < 500 or statuses[-1] in (501, 503), f"{label}: {case.as_curl_command()}"

    with suppress(Unsatisfiable):  # an operation without parameters knows no wrong ones
        one()
