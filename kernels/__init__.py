"""The sources of handlers/engine/kernels.so: two ONNX Runtime operators in C. docs/kernels.md."""
