"""Labels by the colour that they stand for, and a picture's name, which are HTML."""

LABELS = {
    "blue": "<script>alert(1)</script>",
    "green": "a&b\"'",
    "red": f"<img src=x onerror=alert(2)>{'long' * 15}",
}
NAMED = "red00<b onmouseover=alert(3)>"
