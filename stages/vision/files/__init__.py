"""Picture files: opened, checked, resized."""
