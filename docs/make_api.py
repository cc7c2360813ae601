"""Makes docs/api.md from the signatures and docstrings of what ``converter`` exports: `python docs/make_api.py`.

The sources are parsed, not imported, so that the page needs no framework and is the same on every machine.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
SECTIONS = ("Args", "Attributes", "Returns", "Raises")
INTRODUCTION = """# The library

Made by `make docs` from the docstrings; edit those. Every name on this page comes from
`from converter import ...`.

- Importing `converter` imports no framework, because each name is loaded at its first use. Only the models
  (`AutoTwoTower` and `TF...Model`) need Keras. `verify` starts the frameworks in separate processes.
- Results are frozen dataclasses; `to_json()` returns data for `json.dumps`.
- Nothing is printed. `progress` is called from the working thread. `logging.getLogger("converter")` reports each step at
  `INFO`, and what is left out at `DEBUG`.
- All functions may be called from several threads at once, even on the same source. If several write the same
  folder, one succeeds.
- Every error that is not a bug is a `ConverterError`, whose message ends with the next step.
- Names on this page are stable. Anything else may change with any version.
"""

# The class of which inherited methods are told; the others' say where to read.
IN_FULL = "TFVisionTextDualEncoderModel"

Definition = ast.FunctionDef | ast.ClassDef


def homes() -> dict[str, str]:
    """Every exported name and the module it is defined in, from ``converter/__init__.py``."""
    for node in ast.parse((ROOT / "converter" / "__init__.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "_HOMES":
            found: dict[str, str] = ast.literal_eval(node.value)
            return found
    raise LookupError("converter/__init__.py has no _HOMES")


def file_of(module: str) -> Path:
    """Where a module is written."""
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def home(name: str, module: str) -> str:
    """The module that defines a name which a package passes on."""
    for node in ast.parse(file_of(module).read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and name in ast.dump(node.value):
            return f"{module}.{ast.literal_eval(node.value)[name]}"
    return module


def definition(name: str, module: str) -> Definition:
    """Finds a function or class, through packages that only pass it on."""
    file = file_of(module)
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return definition(name, str(node.module))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and name in ast.dump(node.value):
            return definition(name, f"{module}.{ast.literal_eval(node.value)[name]}")  # a package that loads lazily
    raise LookupError(f"{file} does not define {name}")


def signature(node: ast.FunctionDef) -> str:
    """A definition without its body, one argument per line if it is long."""
    arguments = without_self(node)
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    whole = f"def {node.name}({', '.join(arguments)}){result}: ..."
    if len(whole) <= 110:
        return whole
    return "\n".join([f"def {node.name}(", *(f"    {argument}," for argument in arguments), f"){result}: ..."])


def without_self(node: ast.FunctionDef) -> list[str]:
    """The arguments as text, those of keywords only behind ``*``."""
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + [ast.unparse(value) for value in given.defaults]
    texts = [argument(a, d) for a, d in zip(positional, defaults, strict=True) if a.arg not in ("self", "cls")]
    if given.vararg:
        texts.append(f"*{argument(given.vararg, None)}")
    elif given.kwonlyargs:
        texts.append("*")
    for name, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        texts.append(argument(name, ast.unparse(default) if default is not None else None))
    return [*texts, f"**{argument(given.kwarg, None)}"] if given.kwarg else texts


def argument(node: ast.arg, default: str | None) -> str:
    """One argument with its type and default."""
    text = node.arg + (f": {ast.unparse(node.annotation)}" if node.annotation else "")
    text, default = quoted(text), default and quoted(default)
    return text if default is None else f"{text} = {default}" if node.annotation else f"{text}={default}"


def quoted(text: str) -> str:
    """Strings in double quotes, as ruff lays them out."""
    return text if '"' in text else text.replace("'", '"')


def described(docstring: str) -> Iterator[str]:
    """A Google docstring as Markdown: sections become lists."""
    for block in re.split(r"\n(?=(?:Args|Attributes|Returns|Raises):\n)", docstring):
        title, _, rest = block.partition(":\n")
        if title not in SECTIONS:
            yield code_spans(block.strip()) + "\n"
            continue
        yield f"**{title}**\n"
        body, _, after = rest.strip("\n").partition("\n\n")
        body = "\n".join(line[4:] for line in body.splitlines())
        items = [re.sub(r"\s*\n\s+", " ", item) for item in re.split(r"\n(?=\S)", body)]
        if title == "Returns":
            yield code_spans(" ".join(items)) + "\n"
        else:
            yield "\n".join(re.sub(r"^(\*{0,2}\w+): ", r"- `\1`: ", code_spans(item)) for item in items) + "\n"
        if after:
            yield code_spans(textwrap.dedent(after)) + "\n"


def wrapped(markdown: str) -> str:
    """Paragraphs and list items broken at column 100, with whole code spans and links; code is unchanged."""
    blocks = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(block if block.startswith("```") else _wrapped(block) for block in blocks)


def _wrapped(text: str) -> str:
    joined = re.sub(r"(?<=\S)\n +(?=\S)|(?<=[^\n#*])\n(?=[^\s#*-])", " ", text)  # a paragraph or an item a line
    lines = []
    for line in joined.split("\n"):
        whole = re.sub(r"`[^`]*`|\]\([^)]*\)", lambda found: found[0].replace(" ", "\0"), line)
        after = "  " if line.startswith("- ") else ""
        broken = textwrap.wrap(whole, 100, subsequent_indent=after, break_long_words=False, break_on_hyphens=False)
        lines += broken if broken and not line.startswith("#") else [line]
    return "\n".join(lines).replace("\0", " ")


def code_spans(text: str) -> str:
    """ReStructuredText's double backquotes as Markdown's single ones."""
    return text.replace("``", "`")


def methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    """Public methods and properties that say what they are."""
    return [
        member
        for member in node.body
        if isinstance(member, ast.FunctionDef) and not member.name.startswith("_") and ast.get_docstring(member)
    ]


def inherited(node: ast.ClassDef, module: str) -> list[ast.FunctionDef]:
    """Public methods of the bases that belong to a model with two towers, as Python finds them, those of the class left out."""
    found = {member.name: member for member in methods(node)}
    own = len(found)
    for base, where in bases(node, module):
        for member in [*methods(base), *inherited(base, where)]:
            found.setdefault(member.name, member)
    return list(found.values())[own:]


def bases(node: ast.ClassDef, module: str) -> Iterator[tuple[ast.ClassDef, str]]:
    """The bases of a class that ``converter/models`` defines, but for those of layers."""
    tree = ast.parse(file_of(module).read_text("utf-8"))
    imports = {
        alias.name: str(line.module) for line in tree.body if isinstance(line, ast.ImportFrom) for alias in line.names
    }
    for base in node.bases:
        where = imports.get(base.id, "") if isinstance(base, ast.Name) else ""
        if isinstance(base, ast.Name) and where.startswith("converter.models.") and where != "converter.models.parts":
            found = definition(base.id, where)
            if isinstance(found, ast.ClassDef):
                yield found, where


def section(name: str, module: str) -> Iterator[str]:
    """The page's section for one name."""
    node = definition(name, module)
    docstring = ast.get_docstring(node)
    if not docstring:
        raise LookupError(f"{module}.{name} has no docstring")
    yield f"## {name}\n"
    if isinstance(node, ast.FunctionDef):
        yield f"```python\n{signature(node)}\n```\n"
    yield from described(docstring)
    if isinstance(node, ast.ClassDef):
        further = inherited(node, home(name, module))
        if name != IN_FULL:
            yield from elsewhere(node, further, home(name, module))
        for member in [*methods(node), *(further if name == IN_FULL else ())]:
            marks = "".join(f"@{ast.unparse(decorator)}\n" for decorator in member.decorator_list)
            yield f"### {name}.{member.name}\n"
            yield f"```python\n{marks}{signature(member)}\n```\n"
            yield from described(ast.get_docstring(member) or "")


def elsewhere(node: ast.ClassDef, further: list[ast.FunctionDef], module: str) -> Iterator[str]:
    """Where the page tells of the inherited methods of a class: with a base that the page has, else in full."""
    shown = {
        base.name: {member.name for member in methods(base)} for base, _ in bases(node, module) if base.name in homes()
    }
    rest = [member.name for member in further if not any(member.name in names for names in shown.values())]
    for place, names in [*shown.items(), (IN_FULL, rest)]:
        told = [member.name for member in further if member.name in names]
        if told:
            yield f"{'The rest is as' if place == IN_FULL else 'As'} in [{place}](#{place.lower()}): " + (
                ", ".join(f"`{name}`" for name in told) + ".\n"
            )


def errors() -> Iterator[str]:
    """The tree of errors, as ``converter/errors.py`` draws it."""
    tree = ast.get_docstring(ast.parse((ROOT / "converter" / "errors.py").read_text("utf-8"))) or ""
    drawn = "\n".join(line.removeprefix("    ") for line in tree.splitlines() if line.startswith("    "))
    yield "## Errors\n"
    yield "In `converter.errors`:\n"
    yield f"```text\n{drawn}\n```\n"


def page() -> str:
    """The whole page."""
    names = homes()
    functions = sorted((name for name in names if name[0].islower()), key=str.lower)
    classes = sorted(name for name in names if name[0].isupper())
    contents = ", ".join(f"[{name}](#{name.lower()})" for name in [*functions, *classes, "Errors"])
    parts = [INTRODUCTION, f"{contents}.\n"]
    for name in [*functions, *classes]:
        parts += section(name, names[name])
    return wrapped("\n".join([*parts, *errors()])).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    sys.stdout.write(f"{PAGE}\n")
