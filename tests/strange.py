"""Strange things to find in a labels.csv or a params.yaml, and where to put them."""

import random
import re

PICTURES = ("a.jpg", "b c.png", "d/e.jpg", "$(touch x).jpg", "é.png", "f,g.jpg", "h'\".png", "i.JPG")
LABELS = (
    "id,label,other\n" + "".join(f'"{name.replace(chr(34), chr(34) * 2)}",{"cat" if n % 2 else "dog"},{n}\n'
    for n, name in enumerate(PICTURES))
)  # fmt: skip

FIELDS = (
    "", " ", "\0", "a\0b", '"', '""', '"""', "'", ",", ";", "\t", "\n", "\r", "\r\n", '"a\rb"', '"a\nb"', '"a\r\nb"',
    '"a\0b"', "\\", "\\N", "NA", "nan", "None", "null", "true", "1", "01", "1.0", "1e3", "-0", "inf", "id", "label",
    "../../etc/passwd", "/etc/passwd", "a.jpg", "train/a.jpg", ".", "..", "d", "d/", "d//e", "d\\e", "~", "$(touch x)",
    "`touch x`", "a; rm -rf .", "-rf", "=1+1", "<script>", "</script>", "{{ x }}", "${x}", "%s", "%(x)s", "$x$", "$",
    "\x1b[31m", "\x07", "\x7f", "\x85", "\u2028", "\ufeff", "\u202eabc", "é", "e\u0301", "猫", "🐈", "\U0010ffff",
    "\ud800", "x" * 300, "x" * 140_000, "猫" * 5000, "a/" * 2000, "#", "# comment", "plain:cat", "tta:cat", "*", "?",
    "a|b",
)  # fmt: skip


def _in_a_row(text: str, rng: random.Random, new: str) -> str:
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    fields = lines[at].split(",")
    fields[rng.randrange(len(fields))] = new
    lines[at] = ",".join(fields)
    return "\n".join(lines)


def field(text: str, rng: random.Random) -> str:
    return _in_a_row(text, rng, rng.choice(FIELDS))


def quoted(text: str, rng: random.Random) -> str:
    return _in_a_row(text, rng, f'"{rng.choice(FIELDS)}"')


def label_of_all(text: str, rng: random.Random) -> str:
    """A class of that name, with pictures."""
    new = rng.choice(FIELDS).replace('"', '""')
    return text.replace("cat", f'"{new}"')


def row(text: str, rng: random.Random) -> str:
    """One more, of odd fields; or many; or of many columns."""
    n, times = rng.choice(((1, 1), (2, 1), (3, 1), (3, 300), (3000, 1)))
    return text + (",".join(rng.choice(FIELDS[:70]) for _ in range(n)) + "\n") * times


def columns(text: str, rng: random.Random) -> str:
    """Many columns, or none, or names twice."""
    head, _, rest = text.partition("\n")
    more = rng.choice((",id", ",label", ",x" * 5000, "," * 5000, '"'))
    return rng.choice((head + more, more + head, "", head.replace("id", ""))) + "\n" + rest


def lines(text: str, rng: random.Random) -> str:
    kept = text.split("\n")
    for _ in range(rng.choice((1, 3))):
        at = rng.randrange(len(kept))
        kept[at : at + 1] = rng.choice(([], [kept[at]] * 2, [kept[at][: rng.randrange(len(kept[at]) + 1)]], ["", ""]))
        kept = kept or [""]
    rng.shuffle(kept) if rng.random() < 0.1 else None
    return "\n".join(kept)


def ends(text: str, rng: random.Random) -> str:
    """Other ends of lines, other separators."""
    old, new = rng.choice((("\n", "\r\n"), ("\n", "\r"), (",", ";"), (",", "\t"), ('"', "'"), ("\n", ""), (",", ", ")))
    return text.replace(old, new)


CSV_EDITS = (field, field, quoted, quoted, label_of_all, label_of_all, row, columns, lines, ends)

NINE = ", ".join(["*a{}"] * 9)
LAUGHS = "\n".join(["a0: &a0 [lol, lol]", *(f"a{n}: &a{n} [{NINE.replace('{}', str(n - 1))}]" for n in range(1, 20))])
MERGES = "\n".join(
    ["a0: &a0 {k0: 1}", *(f"a{n}: &a{n} {{k{n}: 1, <<: [{NINE.replace('{}', str(n - 1))}]}}" for n in range(1, 12))]
)
VALUES = (
    "null", "~", "true", "yes", "off", "''", "'1e-3'", "1e-3", "1.", ".5", "+1", "-1", "-0.0", "0", "1e400", "1e-400",
    ".nan", ".inf", "-.inf", "0x10", "0o17", "0o9", "0b2", "1_000", "0x" + "f" * 20_000, "9" * 50, "9" * 5000,
    "1:30:00", "2026-01-01", "2026-13-45", "2026-01-01T25:61:61Z", "!!int abc", "!!float abc", "!!bool abc",
    "!!timestamp x", "!!binary x", "!!binary ====", "!!null x", "!!str 1", "!!set {a, b}", "!!omap [a: 1]",
    "!!pairs [a: 1]", "!!map x", "!!seq x", "!!merge x", "!local x", "!<tag:yaml.org,2002:int> 3",
    "!!python/object/apply:os.system ['touch ran']", "!!python/name:os.system",
    "!!python/object/new:os.system ['touch ran']", "!!python/tuple [1, 2]", "&x [*x]",
    "&x {a: *x}", "*nowhere", "&x 1", "*x", "[]", "{}", "[1, 2", "{a: 1", "[1, 2, 3]", "[0.0, 0.1, 0.2]", "[[1]]",
    "{a: 1}", "{<<: {a: 1}}", "{<<: 1}", "{<<: [1, 2]}", "{[1]: 2}", "{{a: 1}: 2}", "{null: 2}", "{1: 2}",
    "? [1]", "[" * 60 + "]" * 60, "[" * 4000, "[" * 90_000 + "]" * 90_000, "{a: " * 5000 + "}" * 5000, "- " * 60_000,
    "|\n  text", ">\n  text", "'a\n  b'", '"\\x00"', '"\\ud800"', '"\\U0010ffff"', '"\\q"', "@x", "`x`", "%x",
    "a: b: c", "\t1", "\0", "\x1b[31m", "\x85", "\u2028", "\ufeff", "\ud800", "é", "猫", "🐈", "x" * 1_000_000,
    "# no value", "data/raw/elpv", "auto", "none", "best", "last", "csv", "sgdr", "4096", "1024", "2", "0.5", "=",
)  # fmt: skip
HEADS = (
    "%YAML 1.1\n---\n", "%YAML 1.2\n---\n", "%YAML 9.9\n---\n", "%YAML x\n", "%TAG ! tag:yaml.org,2002:\n---\n",
    "---\n", "--- 1\n---\n", "\ufeff", "- a\n", "[", "{", "'", '"', "? ", "text\n", "\t", "%", "...\n", "!!map\n",
    "&x\n", "!!set\n",
)  # fmt: skip


def value(text: str, rng: random.Random) -> str:
    """Of one key, at any depth."""
    spans = [match.span(1) for match in re.finditer(r":( +[^\n#]+)(?=#|\n)", text)]
    start, end = rng.choice(spans or [(0, 0)])
    return f"{text[:start]} {rng.choice(VALUES)} {text[end:]}"


def name(text: str, rng: random.Random) -> str:
    """Another key's, or none at all."""
    spans = [match.span(1) for match in re.finditer(r"^ *([\w]+):", text, re.MULTILINE)]
    start, end = rng.choice(spans or [(0, 0)])
    other = rng.choice([text[slice(*rng.choice(spans or [(0, 0)]))], *rng.sample(VALUES, 3), "<<", "__class__"])
    return text[:start] + other + text[end:]


def section(text: str, rng: random.Random) -> str:
    """A whole section as one value."""
    names = re.findall(r"^(\w+):", text, re.MULTILINE)
    which = rng.choice(names or ["seed"])
    return re.sub(rf"(?ms)^{which}:.*?(?=^\w|\Z)", lambda _: f"{which}: {rng.choice(VALUES)}\n", text)


def head(text: str, rng: random.Random) -> str:
    return rng.choice(HEADS) + text


def tail(text: str, rng: random.Random) -> str:
    """Bombs, second documents, keys that are there twice, and a section that is a bomb."""
    victim = rng.choice(("resize", "train_full", "seed", "head"))
    laughs = re.sub(rf"(?ms)^{victim}:.*?(?=^\w|\Z)", "", text) + f"{LAUGHS}\n{victim}: *a{rng.randrange(1, 20)}\n"
    merges = re.sub(rf"(?ms)^{victim}:.*?(?=^\w|\Z)", "", text) + f"{MERGES}\n{victim}: *a{rng.randrange(1, 12)}\n"
    return rng.choice((laughs, merges, text + text, f"{text}---\na: 1\n", f"{text}...\nx", f"{text}seed: 1\n"))


YAML_EDITS = (value, value, value, name, section, head, tail, lines, ends)
