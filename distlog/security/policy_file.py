"""A policy in a file, as the ancestor had it: read at the start, and again whenever it changes.

    p, alice, orders-*, produce
    g, bob, writers            # and lines that are empty or begin with #

All nodes need the same file; keeping them so is up to whoever looks after them.  A file that cannot be used any more changes nothing:
the policy that was in force stays, and the log says so, once for each such file.  A file without a rule is such a one, since it is what a
full disk and an editor leave, and without a rule everybody could do everything.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from distlog.errors import ConfigurationInvalid, InvalidRequest
from distlog.security.authorizer import Authorizer
from distlog.security.deciding import Decider, ModelDecider, PolicyDecider
from distlog.security.files import Files, Stamp, read_whole
from distlog.security.policy import Policy, rule_of
from distlog.security.policy_rows import parse_rows

logger = logging.getLogger(__name__)

POLICY_FLAG, MODEL_FLAG = "--acl-policy", "--acl-model"
NO_RULE = "has no rule: begin with `p, NAME, *, administer`; if everybody is to do everything, leave the flag out"


class PolicyFile:
    """The files of a policy and, where the operator has one of their own, of its model."""

    def __init__(self, files: Files, policy_path: str, model_path: str = "") -> None:
        self._files = files
        self._policy_path = policy_path
        self._model_path = model_path
        self._stamps: tuple[Stamp | None, Stamp | None] = (None, None)

    def load(self) -> Decider:
        """Read them.  Raises ConfigurationInvalid, which says what is wrong with which file, or where in it."""
        self._stamps = self._look()
        data = read_whole(self._files, POLICY_FLAG, self._policy_path).data
        rows = parse_rows(data, POLICY_FLAG, self._policy_path)
        if not rows:
            raise ConfigurationInvalid(key=POLICY_FLAG, problem=f"{self._policy_path} {NO_RULE}")
        if self._model_path:
            return ModelDecider(self._read_model(), [row for _, row in rows])
        return PolicyDecider(policy_of(rows, self._policy_path))

    def refresh(self, authorizer: Authorizer) -> None:
        """Bring what the files say into force if they have changed since they were read last."""
        if self._look() == self._stamps:
            return
        try:
            decider = self.load()
        except ConfigurationInvalid as error:
            logger.error(
                "the policy file was changed and cannot be used, so the policy stays what it was: mend it problem=%s",
                error,
            )
            return
        authorizer.replace(decider)
        logger.info("the policy file was read again path=%s", self._policy_path)

    def _look(self) -> tuple[Stamp | None, Stamp | None]:
        return (
            self._files.stamp(self._policy_path),
            self._files.stamp(self._model_path) if self._model_path else None,
        )

    def _read_model(self) -> str:
        try:
            return read_whole(self._files, MODEL_FLAG, self._model_path).data.decode()
        except UnicodeDecodeError:
            raise ConfigurationInvalid(MODEL_FLAG, f"{self._model_path} is no UTF-8") from None


def policy_of(rows: Sequence[tuple[int, Sequence[str]]], path: str) -> Policy:
    """Return the policy of these rows.  Raises ConfigurationInvalid."""
    rules = []
    for number, row in rows:
        try:
            rules.append(rule_of(row))
        except InvalidRequest as error:
            problem = f"{path}, line {number}: {error.problem}"
            raise ConfigurationInvalid(key=POLICY_FLAG, problem=problem) from error
    policy = Policy(rules)
    # A file can always be changed, so nobody has to be able to change it through a node.
    if policy.structure_problem:
        raise ConfigurationInvalid(key=POLICY_FLAG, problem=f"{path}: {policy.structure_problem}")
    return policy
