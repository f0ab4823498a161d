"""AnchorSeg: language grounded query banks for reasoning segmentation; the method, and what users import."""

from anchorseg.build import load_model
from anchorseg.config import AnchorSegConfig, Method
from anchorseg.modeling import AnchorSegModel
from anchorseg.predictor import AnchorSegPredictor, Answer, Target

__all__ = ["AnchorSegConfig", "AnchorSegModel", "AnchorSegPredictor", "Answer", "Method", "Target", "load_model"]
