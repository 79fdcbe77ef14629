"""What a model is used with: Grad-CAM, the ONNX file, the model card."""
