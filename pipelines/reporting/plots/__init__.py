"""The report's pictures as PNG bytes, drawn without pyplot, so that nothing global is touched."""

from pipelines.reporting.plots.classes import motion_effect, per_class
from pipelines.reporting.plots.confusion import confusion_matrix
from pipelines.reporting.plots.curves import calibration, fusion_weight, training

__all__ = ["calibration", "confusion_matrix", "fusion_weight", "motion_effect", "per_class", "training"]
