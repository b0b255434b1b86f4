"""The README's map of the folders is what the modules say of themselves; `./just map` writes it."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
FOLDERS = ("models", "dataflows", "quantize", "edge", "central", "bench")
BEFORE, AFTER = "<!-- the map, by `./just map` -->\n```\n", "```\n<!-- end of the map -->\n"
COLUMN = 30


def purpose(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def lines(folder: Path, depth: int = 0) -> Iterator[str]:
    """One line for the folder, then its modules, then its folders."""
    margin = "  " * depth
    yield f"{margin + folder.name + '/':<{COLUMN}}{purpose(folder / '__init__.py')}"
    for path in sorted(folder.glob("*.py")):
        if not path.name.startswith("__"):
            yield f"{margin + '  ' + path.name:<{COLUMN}}{purpose(path)}"
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from lines(inner, depth + 1)


def the_map() -> str:
    return "".join(f"{line}\n" for name in FOLDERS for line in lines(ROOT / name))


def with_map(readme: str) -> str:
    before, _, rest = readme.partition(BEFORE)
    return f"{before}{BEFORE}{the_map()}{AFTER}{rest.partition(AFTER)[2]}"


def test_the_readme_has_the_map_of_what_is_there() -> None:
    readme = README.read_text(encoding="utf-8")

    assert readme == with_map(readme), "run `./just map`"


if __name__ == "__main__":
    README.write_text(with_map(README.read_text(encoding="utf-8")), encoding="utf-8")
