"""What decides on one node who may do what, put together: the policy and where it comes from, the gate, the audit log.

authorization = Authorization(policy, settings, files, audit, random_bytes)
Listener(..., gate=authorization.gate);  authorization.start()  ...  await authorization.stop(timeout_s)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from distlog.errors import ConfigurationInvalid
from distlog.security.audit import CLOSE_TIMEOUT_S, AuditLog
from distlog.security.authorizer import Authorizer
from distlog.security.certificates import names_in_pem
from distlog.security.files import Files
from distlog.security.peer_name import NODE, peer_name_problem
from distlog.security.policy_file import PolicyFile
from distlog.server.gate import Gate
from distlog.server.policy_calls import follow_policy
from distlog.server.served_log import ServedPolicy

logger = logging.getLogger(__name__)

# How often is looked whether the policy file has changed.
FILE_INTERVAL_S = 1.0
OPEN_WARNING = (
    "there is no policy: whoever can connect may do everything; if that is not meant, begin with "
    "`distlog acl add NAME administer '*'`"
)
BOTH = (
    "the cluster has agreed on a policy, and this node was given a file: take its rules away with `distlog acl`, or start "
    "without --acl-policy"
)


@dataclass(frozen=True, slots=True)
class AuthorizationSettings:
    """What an operator decides."""

    # "": the policy that the cluster has agreed on.
    policy_path: str = ""
    # "": the model of deciding.py.
    model_path: str = ""
    # Nothing is allowed before the replicated policy is known.
    is_strict: bool = False
    administrators: tuple[str, ...] = ()
    # What the certificates of nodes must name, as --tls-peer-name has it; "": clients may be named so, too.
    node_name: str = ""
    # Others than this machine can connect.
    is_reachable: bool = False


class Authorization:
    """One node's."""

    def __init__(
        self,
        policy: ServedPolicy,
        settings: AuthorizationSettings,
        files: Files,
        audit: AuditLog,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """Read the policy file, if there is to be one.  Raises ConfigurationInvalid if it cannot be used."""
        self._policy = policy
        self._settings = settings
        self._audit = audit
        self._file: PolicyFile | None = None
        decider = None
        if settings.policy_path:
            self._file = PolicyFile(files, settings.policy_path, settings.model_path)
            decider = self._file.load()
        self.authorizer = Authorizer(
            decider, administrators=settings.administrators, file=settings.policy_path
        )
        self.gate = Gate(self.authorizer, audit, random_bytes, self._is_node)
        self._following: asyncio.Task[None] | None = None
        self._has_warned = False

    def start(self) -> None:
        """Keep the policy in force up to date from now on.  Raises ConfigurationInvalid if there are two."""
        if self._file is None:
            following = follow_policy(
                self._policy, self.authorizer, is_strict=self._settings.is_strict
            )
            self.authorizer.changed.append(self._warn_if_open)
        else:
            if self._policy.current.rules:
                raise ConfigurationInvalid(key="--acl-policy", problem=BOTH)
            self._policy.changed.append(self._complain_of_both)
            following = self._watch(self._file)
        self._following = asyncio.get_running_loop().create_task(following)

    @property
    def decision_counts(self) -> Mapping[tuple[str, str], int]:
        """Return how many requests were allowed and denied, by action."""
        return self.gate.decision_counts

    @property
    def audit_counts(self) -> dict[str, int]:
        """Return what became of the lines of the audit log."""
        return {
            "written": self._audit.written_count,
            "left_out": self._audit.left_out_count,
            "lost": self._audit.lost_count,
        }

    async def stop(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Stop, and write what the audit log has not written; False if its disk did not take that in time."""
        if self._following is not None:
            self._following.cancel()
        return await self._audit.close(timeout_s)

    def _is_node(self, certificate: bytes, node_id: str) -> bool:
        template = self._settings.node_name
        if NODE not in template or not node_id:
            # Every holder of such a name may be any node.
            return False
        return peer_name_problem(template, names_in_pem(certificate), node_id) is None

    async def _watch(self, file: PolicyFile) -> None:
        while True:
            await asyncio.sleep(FILE_INTERVAL_S)
            file.refresh(self.authorizer)

    def _warn_if_open(self) -> None:
        if self.authorizer.is_open and self._settings.is_reachable and not self._has_warned:
            self._has_warned = True
            logger.warning(OPEN_WARNING)

    def _complain_of_both(self) -> None:
        if self._policy.current.rules:
            logger.error("%s; until then the file counts here", BOTH)
