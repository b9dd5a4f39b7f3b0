"""The pipelines by name."""

from collections.abc import Mapping
from types import MappingProxyType

from kfp.dsl.base_component import BaseComponent

from pipelines.train_one import train_one

PIPELINES: Mapping[str, BaseComponent] = MappingProxyType({"train_one": train_one})
