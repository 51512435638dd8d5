"""Imports run one way, and the light parts stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lib_dsm"

# What each part may import of ours besides itself and the top files. Parts of one line of the design may use each
# other as long as no module ends up importing itself.
BELOW: dict[str, set[str]] = {
    "dataset": set(),
    "tagging": {"dataset"},
    "pruning": {"dataset"},
    "cropping": {"dataset"},
    "diffusion": set(),
    "networks": {"diffusion"},
    "extraction": {"networks", "diffusion", "training", "guards"},
    "training": {"networks", "diffusion", "dataset", "guards", "extraction"},
    "guards": {"networks", "diffusion", "dataset", "training", "extraction"},
    "host": {"guards", "training", "extraction", "networks", "diffusion", "dataset"},
}
FREE = {"errors", "files", "hub", "jobs", "options", "seeds", ""}  # "" is lib_dsm itself
FACES = {"ui", "api", "cli", "demo", "__main__"}
EVERYTHING = set(BELOW) | FACES

# Who may import the libraries that bind us to one program or are slow to load.
STUDIO_MODEL = ("diffusion/diffusers.py", "diffusion/sampling.py", "host/studio.py", "demo/train_*.py")
LIBRARIES = {
    "modules": ("host/webui*.py", "diffusion/ldm.py"),
    "ldm": ("host/webui*.py", "diffusion/ldm.py"),
    "gradio": ("ui/*",),
    "diffusers": STUDIO_MODEL,
    "transformers": (*STUDIO_MODEL, "host/vocabulary.py"),
    "ldm_patched": ("diffusion/patched_ldm.py",),  # these two are reForge's
    "modules_forge": ("host/webui*.py",),
}

MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def dotted(module: str) -> str:
    return "lib_dsm." + module.removesuffix(".py").removesuffix("__init__").replace("/", ".").rstrip(".")


NAMES = {dotted(module) for module in MODULES}


def imports_of(module: str) -> list[tuple[int, str, bool]]:
    """The line, the full name and whether it happens at import time, of everything a module imports."""
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    found: list[tuple[int, str, bool]] = []

    def visit(node: ast.AST, loading: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((node.lineno, alias.name, loading) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = dotted(module).split(".")
                keep = len(parts) - node.level + module.endswith("__init__.py")
                base = ".".join([*parts[:keep], *([base] if base else [])])
            names = {full if (full := f"{base}.{alias.name}") in NAMES else base for alias in node.names}
            found.extend((node.lineno, name, loading) for name in sorted(names))
        for child in ast.iter_child_nodes(node):
            later = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            visit(child, loading and not later and not typing_only)

    visit(tree, True)
    return found


def part(name: str) -> str:
    """The folder or top file a name of ours lies in."""
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    own = part(dotted(module))
    if own in FREE:
        allowed = FREE
    elif own in FACES:
        allowed = FREE | EVERYTHING
    else:
        assert own in BELOW, f"lib_dsm/{own} has no place in the order of imports yet"
        allowed = FREE | BELOW[own] | {own}
    wrong = [
        f"lib_dsm/{module}:{line} imports {name}"
        for line, name, _ in imports_of(module)
        if name.split(".")[0] == "lib_dsm" and part(name) not in allowed
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", MODULES)
def test_libraries_stay_where_they_belong(module: str) -> None:
    wrong = [
        f"lib_dsm/{module}:{line} imports {name}"
        for line, name, _ in imports_of(module)
        if (library := name.split(".")[0]) in LIBRARIES
        and not any(fnmatch(module, pattern) for pattern in LIBRARIES[library])
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_in_a_circle() -> None:
    needs = {
        dotted(module): {name for _, name, loading in imports_of(module) if loading and name in NAMES}
        for module in MODULES
    }
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " → ".join([*way[way.index(name) :], name])
        if name not in done:
            for needed in needs.get(name, set()) - {name}:
                walk(needed, (*way, name))
            done.add(name)

    for name in needs:
        walk(name, ())


def loaded_after(imports: list[str]) -> set[str]:
    """The heavy libraries in a fresh Python after the imports."""
    code = (
        f"import sys, {', '.join(imports)}\n"
        "print(*({name.split('.')[0] for name in sys.modules} & "
        "{'torch', 'onnxruntime', 'gradio', 'diffusers', 'transformers', 'modules'}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    return set(answer.stdout.split())


def test_the_top_loads_nothing_heavy() -> None:
    assert loaded_after(["lib_dsm", "lib_dsm.cli"]) == set()


@pytest.mark.parametrize("folder", ["dataset", "tagging", "pruning", "cropping"])
def test_work_on_pictures_and_tags_loads_nothing_heavy(folder: str) -> None:
    modules = [dotted(module) for module in MODULES if module.startswith(f"{folder}/")]
    assert loaded_after(modules) == set()


def test_the_walk_sees_every_way_to_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "loop.py").write_text(
        "import a.b\nfrom . import config\nfrom ..host import studio\nfrom lib_dsm import ui\n"
        "if TYPE_CHECKING:\n    import c\ndef f():\n    from d import e\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    monkeypatch.setattr(
        sys.modules[__name__], "NAMES", {"lib_dsm.host.studio", "lib_dsm.training.config", "lib_dsm.ui"}
    )
    assert imports_of("training/loop.py") == [
        (1, "a.b", True),
        (2, "lib_dsm.training.config", True),
        (3, "lib_dsm.host.studio", True),
        (4, "lib_dsm.ui", True),
        (6, "c", False),
        (8, "d", False),
    ]
