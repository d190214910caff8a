"""What every mapping of a policy file has in common: no unknown keys, and keys that can stand together."""

from __future__ import annotations

from collections.abc import Collection
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from topicwarden.policy.values import RefusedError


class Strict(BaseModel):
    """What people write by hand: no unknown keys, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def shape_problem(cls, keys: Collection[str]) -> RefusedError | None:  # noqa: ARG003 - for those that override it
        """Say why these keys cannot stand together in one mapping, or None; looks at no value."""
        return None

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        problem = self.shape_problem(self.model_fields_set)
        if problem is not None:
            raise problem
        return self


def one_place(keys: Collection[str], what: str, *more: str) -> RefusedError | None:
    """Say why these keys name no place, or more than one. `more`: kinds of names besides topics and exchanges' keys."""
    hint = "write topic: FILTER, or exchange: NAME and key: PATTERN" + "".join(f", or {kind}: PATTERN" for kind in more)
    named = [kind for kind in ("topic", *more) if kind in keys]
    by_key = [key for key in ("exchange", "key") if key in keys]
    if len(named) + bool(by_key) > 1:
        return RefusedError(f"{what} names one kind of place, not {', '.join([*named, *by_key])} together", hint)
    if not named and len(by_key) < 2:
        return RefusedError(f"{what} does not say which names it is about", hint)
    return None
