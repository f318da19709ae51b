"""TensorRT, native: a bundle's engines as plans, built on the device that runs them (docs/tensorrt.md).

One path for TensorRT 10.3 to 11.4: strongly typed networks, explicit Q/DQ, nothing that either end lacks.
"""
