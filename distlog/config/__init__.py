"""The configuration of a node: one table for the flags, the DISTLOG_* variables and the keys of the TOML file.

    flag --peer-listen  >  DISTLOG_PEER_LISTEN  >  peer_listen in the file  >  default

    kinds   what a person may write for an address, a size, a time, ...
    table   ServeConfig: each field carries its kind, limits and help; the three sources are read through it
    load    the three sources into one checked ServeConfig

Invariants: nothing is ignored, so an unknown flag, variable or key, or a value out of its limits, is ConfigurationInvalid,
which names it, the problem, and the nearest name that is known; a ServeConfig that `load` returned needs no further check.

Deliberately absent: settings that weaken what an acknowledgement means.
"""

from distlog.config.kinds import Address, parse_address, parse_bytes
from distlog.config.load import check_environment, load, nearest
from distlog.config.table import SETTINGS, ServeConfig, Setting

__all__ = [
    "SETTINGS",
    "Address",
    "ServeConfig",
    "Setting",
    "check_environment",
    "load",
    "nearest",
    "parse_address",
    "parse_bytes",
]
