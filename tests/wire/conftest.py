"""What the tests of the wire share: the official SDK's types as judge."""

from dataclasses import fields, is_dataclass

import pytest


def without_nulls(value):
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def unknown_fields(value):
    if is_dataclass(value):
        own = [*getattr(value, "_unknown_fields", {})]
        return own + [name for field in fields(value) for name in unknown_fields(getattr(value, field.name))]
    return [name for item in value for name in unknown_fields(item)] if isinstance(value, list) else []


@pytest.fixture(scope="session")
def lossless():
    """A check that a parsed object of the SDK says all that its source says, with no field unknown to it."""

    def check(parsed, source):
        assert unknown_fields(parsed) == []
        assert without_nulls(parsed.to_dict()) == without_nulls(source)

    return check
