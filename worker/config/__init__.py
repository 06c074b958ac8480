"""The configuration: one TOML file and the environment, declared once, all problems reported together."""

from worker.config.loading import load as load
from worker.config.loading import mask_of as mask_of
from worker.config.masking import Mask as Mask
from worker.config.settings import Settings as Settings
