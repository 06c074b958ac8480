"""Holds what all tables of the configuration share."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the configuration file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
