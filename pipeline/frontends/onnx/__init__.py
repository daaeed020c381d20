"""ONNX models, by IREE's importer."""
