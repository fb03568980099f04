"""Names of the points that detectors read: a trial's probe and signals write them.

A probe scores few samples, often: its values stand at one discriminator update, and the score
closes it.
"""

from ganstudy.records import PROBE_SCORE

PROBE = "probe/"
"""How the names of a probe's values begin."""
SHARE = PROBE + "share/"
"""Share of a mode (named behind it) among the generated samples over its share of the data."""
EFFECTIVE_MODES = PROBE + "effective_modes"
DIVERSITY = PROBE + "diversity"
HIGH_QUALITY = PROBE + "high_quality_fraction"
"""Share of the samples within 3 standard deviations of a mode, where the modes are known."""
HIGH_QUALITY_SE = HIGH_QUALITY + "_se"
AUC = PROBE + "auc"
CHECKERBOARD = PROBE + "checkerboard"
CHECKERBOARD_SE = CHECKERBOARD + "_se"
MEMORIZATION = PROBE + "memorization"
FLOOR = PROBE + "floor"
"""The score of real samples against real ones, as many as a probe has; told once."""
SCORE = PROBE_SCORE
"""The score, lower is better; it closes a probe."""
SCORE_SE = SCORE + "_se"
FOREIGN_SCORE = "fid"
"""What logs of other systems call their score."""
SCORES = (SCORE, FOREIGN_SCORE)

LOSSES = ("discriminator_loss", "generator_loss")
LOGITS = ("real_logits_mean", "fake_logits_mean")
WEIGHT_NORMS = ("generator_weight_norm", "discriminator_weight_norm")
GRADIENT_NORMS = ("generator_grad_norm", "discriminator_grad_norm")
SLOPE = "generator_logit_slope"
INPUT_GRADIENT = "discriminator_input_grad_norm"
TRAIN_AUC = "discriminator_auc"
