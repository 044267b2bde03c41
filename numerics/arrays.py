"""Array types shared by the contract."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[Any]
FloatArray = NDArray[Any]
UInt8Array = NDArray[np.uint8]
