from affectflow.losses.center import CenterLoss, center_loss
from affectflow.losses.diagnostics import ClassStatistics, center_diagnostics, cluster_state
from affectflow.losses.joint import LOSSES, JointLoss, LossValue, build_loss
from affectflow.losses.softmax import SoftmaxLoss, WeightedSoftmaxLoss, softmax_loss, weighted_softmax_loss
from affectflow.losses.weighted_cluster import WeightedClusterLoss, center_spread, weighted_cluster_loss

__all__ = [
    "LOSSES",
    "CenterLoss",
    "ClassStatistics",
    "JointLoss",
    "LossValue",
    "SoftmaxLoss",
    "WeightedClusterLoss",
    "WeightedSoftmaxLoss",
    "build_loss",
    "center_diagnostics",
    "center_loss",
    "center_spread",
    "cluster_state",
    "softmax_loss",
    "weighted_cluster_loss",
    "weighted_softmax_loss",
]
