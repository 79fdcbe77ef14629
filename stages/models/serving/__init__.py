"""Files and explanations for users of a model: Grad-CAM, the ONNX file, the model card."""
