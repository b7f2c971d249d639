"""The report's figures."""

from pipelines.reporting.plots.classes import motion_effect, per_class
from pipelines.reporting.plots.confusion import confusion_matrix
from pipelines.reporting.plots.curves import calibration, fusion_weight, training
from pipelines.reporting.plots.drawing import PanelGrid

__all__ = ["PanelGrid", "calibration", "confusion_matrix", "fusion_weight", "motion_effect", "per_class", "training"]
