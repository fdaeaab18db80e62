"""Names of releases: semantic versions."""

from typing import Annotated

from pydantic import Field

VERSION_PATTERN = (
    r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$"
)
"""semver.org: major.minor.patch, then an optional -prerelease and +build."""

Version = Annotated[str, Field(pattern=VERSION_PATTERN, max_length=100)]
