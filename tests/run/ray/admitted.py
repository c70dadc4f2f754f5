"""The scripted family with a data set that is another one on nodes of whose environment a variable says so."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from search_spaces.api import Space
from tests.worlds.family import FAMILY as SCRIPTED
from tests.worlds.family import NoData, suggest


class Differing(NoData):
    def digest(self, name: str, data_dir: Path) -> str:
        return super().digest(name, data_dir)[:: -1 if "TUNE_RH_ANOTHER_SET" in os.environ else 1]


SOURCE = Differing()
FAMILY = replace(SCRIPTED, name="differing", data="tests.run.ray.admitted:SOURCE")
SPACE = Space(suggest=suggest, base="control")
