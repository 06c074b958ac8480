"""The configuration: one TOML file and the environment, declared once, all problems reported together."""

from flagstream.config.loading import load as load
from flagstream.config.loading import mask_of as mask_of
from flagstream.config.masking import Mask as Mask
from flagstream.config.settings import Settings as Settings
