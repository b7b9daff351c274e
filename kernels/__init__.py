"""The sources of handlers/engine/kernels.so: ONNX Runtime operators in C. docs/kernels.md."""
