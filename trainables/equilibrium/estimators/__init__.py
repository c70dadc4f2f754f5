"""Ways to come by the gradient of the loss at a fixed point, one file each, by the names that configs spell."""

from __future__ import annotations

from collections.abc import Mapping

from trainables.equilibrium.config import EstimatorName
from trainables.equilibrium.estimators.aep_dyadic import aep_dyadic
from trainables.equilibrium.estimators.aep_frozen import aep_frozen
from trainables.equilibrium.estimators.aep_frozen_rc import aep_frozen_rc
from trainables.equilibrium.estimators.aep_tracking import aep_tracking
from trainables.equilibrium.estimators.api import Estimator
from trainables.equilibrium.estimators.bptt import bptt
from trainables.equilibrium.estimators.ep import ep
from trainables.equilibrium.estimators.holo import holo
from trainables.equilibrium.estimators.implicit import implicit

ESTIMATORS: Mapping[EstimatorName, Estimator] = {
    "bptt": bptt,
    "implicit": implicit,
    "ep": ep,
    "aep_frozen": aep_frozen,
    "aep_frozen_rc": aep_frozen_rc,
    "aep_tracking": aep_tracking,
    "aep_dyadic": aep_dyadic,
    "holo": holo,
}
