"""Quantises one ONNX file with NVIDIA ModelOpt, in an environment of its own.

python quantise_modelopt.py FLOAT.onnx INPUTS.npy INT8.onnx METHOD
"""

import sys
import warnings

import numpy as np

warnings.filterwarnings("ignore")

from modelopt.onnx.quantization import quantize  # noqa: E402

source, inputs, target, method = sys.argv[1:]
quantize(
    source,
    quantize_mode="int8",
    calibration_data=np.load(inputs),
    calibration_method=method,
    calibration_eps=["cpu"],
    high_precision_dtype="fp32",
    output_path=target,
    log_level="WARNING",
)
