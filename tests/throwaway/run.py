"""One registration for each throw-away part, then a program: `python -m tests.throwaway.run PROGRAM ...`."""

import importlib
import sys

from anchorseg.method import heads
from dataset import registry
from model import backbone_names
from tests.throwaway.dataset import FAMILY
from tests.throwaway.head import MeanOptions

registry.FAMILIES["squares"] = FAMILY
heads.HEADS["mean"] = heads.HeadEntry("tests.throwaway.head:MeanHead", MeanOptions)
backbone_names.MASK_BACKBONES["conv"] = "tests.throwaway.masks:ConvBackbone"

if __name__ == "__main__":
    program, *rest = sys.argv[1:]
    sys.argv = [program, *rest]
    importlib.import_module(program).main(rest)
