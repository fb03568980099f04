"""The Ray Tune executor; only this package imports ray.

Tune places trials, shares out resources and starts again what crashed. The record is ours: a trial
that is tried again goes on from its own folder, and Tune's snapshots are never read.
"""

import os

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # with the new engine Tune prints two banners in spite of verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # its loggers import torch into the driver
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends a study, whatever it is at
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # snapshots that nobody reads
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "6",  # seconds in which a head that refuses us is asked again
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in every process
}
for _name, _value in ENVIRONMENT.items():  # ray reads some of these while it is imported
    os.environ.setdefault(_name, _value)

from ganstudy.sweep.ray_tune.cluster import check_cluster  # noqa: E402
from ganstudy.sweep.ray_tune.executor import TrialActor, execute  # noqa: E402

__all__ = ["TrialActor", "check_cluster", "execute"]
