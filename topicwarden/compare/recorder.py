"""Writes down what is found of one broker's grants, each finding with where the grant stands and whose it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from topicwarden.compare.acceptance import Acceptance
from topicwarden.compare.principals import Principal
from topicwarden.compare.told import class_evidence, grant_evidence, origin_scope
from topicwarden.events import Certainty, Client
from topicwarden.findings import Finding, Ledger, Scalar
from topicwarden.grants import Grants, Origin


class Recorder:
    """Records findings in a ledger; `acceptance` says which of them the policy's exceptions accept."""

    def __init__(self, ledger: Ledger, grants: Grants, acceptance: Acceptance, now_ns: int) -> None:
        self.acceptance = acceptance
        self._ledger = ledger
        self._grants = grants
        self._now = now_ns

    def of_class(
        self,
        code: str,
        principal: Principal,
        origin: Origin,
        evidence: Mapping[str, Scalar],
        *,
        accepted: str | None,
        witnesses: Sequence[str] = (),
        certainty: Certainty = Certainty.EXACT,
        more_scope: tuple[str, ...] = (),
    ) -> Finding | None:
        """Record what a grant is to a class of clients."""
        client = Client(
            self._grants.broker,
            principal.client.protocol,
            "",
            principal.client.user,
            vhost=principal.client.vhost,
            identity=principal.client.identity,
        )
        told = {**grant_evidence(origin), **class_evidence(principal), **evidence}
        if not principal.named:
            told["stands_for"] = "clients that the broker's configuration does not name"
        return self._ledger.record(
            code,
            broker=self._grants.broker,
            client=client,
            scope=(*origin_scope(origin), *more_scope),
            first_ns=self._now,
            last_ns=self._now,
            certainty=certainty,
            witnesses=dict.fromkeys(witnesses, 1),
            evidence=told,
            accepted=accepted,
        )

    def of_grant(
        self,
        code: str,
        origin: Origin,
        evidence: Mapping[str, Scalar],
        *,
        clients: Sequence[Client] = (),
        witness: str | None = None,
        certainty: Certainty = Certainty.EXACT,
        more_scope: tuple[str, ...] = (),
        period: tuple[int, int] | None = None,
    ) -> None:
        """Record what is so of a grant, whoever has it.

        `clients`: whom it is about, where it is about somebody; the first is named. `period`: what it was observed in.
        """
        first_ns, last_ns = period or (self._now, self._now)
        self._ledger.record(
            code,
            broker=self._grants.broker,
            client=clients[0] if clients else None,
            scope=(*origin_scope(origin), *more_scope),
            first_ns=first_ns,
            last_ns=last_ns,
            certainty=certainty,
            witnesses=None if witness is None else {witness: 1},
            evidence={**grant_evidence(origin), **evidence},
            accepted=self.acceptance.of_grant(code, origin, clients),
        )
