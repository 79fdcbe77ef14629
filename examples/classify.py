"""python classify.py FOLDER PICTURE...: classify pictures with only onnxruntime, NumPy and Pillow.

FOLDER is the output of the stage `export`, including this file: model.onnx, model.json, and preprocessing/, the
project's own code, which gives the network the same pixels as `stages.predict`.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import onnxruntime

if len(sys.argv) < 3:
    sys.exit(__doc__)
export = Path(sys.argv[1])
sys.path.insert(0, str(export))
sys.dont_write_bytecode = True  # the folder is an output of DVC and must not change
from preprocessing.images import BadPictureError  # noqa: E402
from preprocessing.network_input import network_input  # noqa: E402
from preprocessing.resized import resized  # noqa: E402

about = json.loads((export / "model.json").read_text(encoding="utf-8"))
if about["task"]["name"] != "single_label":
    sys.exit(f"this example supports only the task single_label, but the task of the model is {about['task']['name']}")
classes = about["task"]["classes"]
preprocessing, session = about["preprocessing"], onnxruntime.InferenceSession(export / "model.onnx")
for name in sys.argv[2:]:
    try:
        jpeg = resized(Path(name).read_bytes(), SimpleNamespace(**preprocessing["resize"]), max_pixels=100_000_000)
    except (OSError, BadPictureError) as error:
        print(f"{name}\tnot read: {error}", file=sys.stderr)
        continue
    pixels = network_input(jpeg, preprocessing)[None]
    probabilities = session.run(["probabilities"], {"pixels": pixels})[0][0]
    print(f"{name}\t{classes[probabilities.argmax()]}\t{probabilities.max():.4f}")
