"""The pipelines by name."""

from collections.abc import Mapping
from types import MappingProxyType

from kfp.dsl.base_component import BaseComponent

from pipelines.paper_tables import paper_tables
from pipelines.train_one import train_one

PIPELINES: Mapping[str, BaseComponent] = MappingProxyType({"train_one": train_one, "paper_tables": paper_tables})
