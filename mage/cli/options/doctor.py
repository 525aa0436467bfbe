"""Options of `mage doctor`."""

from dataclasses import dataclass

from mage.cli.options.base import Common


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Check the installation, the devices and the packaged models; exit code 1 if something that matters is broken."""
