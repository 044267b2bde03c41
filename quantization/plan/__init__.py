"""What is to be quantized and how: recipes, methods, placement of quantizers."""
