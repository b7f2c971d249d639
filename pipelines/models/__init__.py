"""The network of the paper, one module per box of its figure.

`st_resnet` shows how the data flows; `stream`, `blocks` and `temporal` are its parts, `normalise` comes
before it, `weights` fills it from elsewhere, and `folding` makes it faster for testing.
"""

from pipelines.models.normalise import Normalise
from pipelines.models.st_resnet import StreamLogits, STResNet
from pipelines.models.weights import load_pretrained, load_streams, load_torchvision_state

__all__ = ["Normalise", "STResNet", "StreamLogits", "load_pretrained", "load_streams", "load_torchvision_state"]
