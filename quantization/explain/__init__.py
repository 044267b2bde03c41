"""Where accuracy goes: float against integers, node by node, and what each rounding costs."""
