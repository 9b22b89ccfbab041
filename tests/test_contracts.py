"""Rules of the code base: layers, lazy imports, stubs, versions, words that must not occur."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import mrfast
from mrfast import _core

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "mrfast"
CPP = ROOT / "src" / "cpp"

# What each part of the package may import at module level, beside itself. Foundation modules
# stand in their own order. A part that is not listed here fails `test_every_part_has_a_layer`.
FOUNDATION = ("errors", "_validation", "_optional", "_progress", "_runtime", "_files", "data")
DOMAINS = ("bayes", "federated", "nonlinear", "simulation", "summary")
KERNELS = {domain: {domain} for domain in DOMAINS}  # submodules of _core
KERNELS["bayes"] = {"bayes", "exact", "identified", "ld"}
KERNELS["nonlinear"] = {"crossproducts", "sieve"}
KERNELS["summary"] = {
    "constrained",
    "genotypes",
    "likelihood",
    "matrix",
    "medians",
    "mixture",
    "multivariable",
    "presso",
    "summary",
}
MAY_IMPORT: dict[str, set[str]] = {
    **{part: set(FOUNDATION[:i]) for i, part in enumerate(FOUNDATION)},
    **{domain: {*FOUNDATION, "_core"} for domain in DOMAINS},
    "io": set(FOUNDATION),
    "compat": {*FOUNDATION, "_core", "summary"},
    "plots": set(FOUNDATION),
    "cli": {*FOUNDATION, *DOMAINS, "io", "plots", "<package>"},
    "__main__": {"cli"},
    "<package>": set(),  # __init__.py: names only, resolved when they are first used
}
MAY_IMPORT["_runtime"] |= {"_core"}
MAY_IMPORT["data"] |= {"_core"}  # harmonisation of tables with millions of rows
# Inside functions, domains may also reach for the drawing of their own results.
MAY_IMPORT_LATE = {domain: {"plots"} for domain in DOMAINS}
MAY_IMPORT_LATE["summary"] |= {"io"}  # and for their writing, and a user's reference panel
MAY_IMPORT_LATE["nonlinear"] |= {"io"}  # and for the data that a sweep's configuration names


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    """Dotted name of a module inside the package: "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def part_of(module: str) -> str:
    return module.partition(".")[0] or "<package>"


@dataclass(frozen=True)
class Import:
    target: str  # dotted name below mrfast; "" for the package itself
    name: str | None  # the name that "from target import name" asks for
    line: int
    late: bool  # inside a function


def imports_of(path: Path) -> Iterator[Import]:
    """Imports of mrfast's own modules, without those for type checkers."""

    def walk(node: ast.AST, late: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    yield from walk(other, late)
            elif isinstance(child, ast.Import):
                for alias in child.names:
                    first, _, rest = alias.name.partition(".")
                    if first == "mrfast":
                        yield Import(rest, None, child.lineno, late)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno}: relative import"
                first, _, rest = (child.module or "").partition(".")
                if first == "mrfast":
                    for alias in child.names:
                        if rest or (PACKAGE / alias.name).is_dir() or _is_module(alias.name):
                            target = rest or alias.name
                            name = alias.name if rest else None
                        else:
                            target, name = "", alias.name
                        yield Import(target, name, child.lineno, late)
            else:
                inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                yield from walk(child, late or inside)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), False)


def _is_module(name: str) -> bool:
    return name == "_core" or (PACKAGE / f"{name}.py").is_file()


# ---------------------------------------------------------------------------- layers


def test_every_part_has_a_layer() -> None:
    parts = {part_of(dotted(path)) for path in python_files()}
    assert parts <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", python_files(), ids=lambda path: dotted(path) or "mrfast")
def test_layers(path: Path) -> None:
    part = part_of(dotted(path))
    for found in imports_of(path):
        allowed = {part, *MAY_IMPORT[part]}
        if found.late:
            allowed |= MAY_IMPORT_LATE.get(part, set())
        assert part_of(found.target) in allowed, (
            f"{path.name}:{found.line}: {part} must not import mrfast.{found.target}"
        )


def test_nobody_imports_the_command_line() -> None:
    importers = {
        part_of(dotted(path))
        for path in python_files()
        for found in imports_of(path)
        if part_of(found.target) == "cli"
    }
    assert importers <= {"cli", "__main__"}


@pytest.mark.parametrize("domain", DOMAINS)
def test_domains_touch_only_their_own_kernels(domain: str) -> None:
    for path in (PACKAGE / domain).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "_core"
            ):
                assert node.attr in KERNELS[domain], f"{path.name}:{node.lineno}: {node.attr}"
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mrfast._core"):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                modules = names if node.module == "mrfast._core" else {str(node.module)}
                assert modules <= {f"mrfast._core.{name}" for name in KERNELS[domain]}, (
                    f"{path.name}:{node.lineno}"
                )


def test_layer_check_sees_what_it_should(tmp_path: Path) -> None:
    """The walk finds late, conditional and ``from mrfast import`` forms."""
    source = tmp_path / "module.py"
    source.write_text(
        "from typing import TYPE_CHECKING\n"
        "import mrfast.io.tables\n"
        "from mrfast import _core\n"
        "from mrfast import massive\n"
        "if TYPE_CHECKING:\n    from mrfast.cli import main\n"
        "def f():\n    from mrfast.plots import figure\n"
        "try:\n    from mrfast.data import moments\nexcept ImportError:\n    pass\n"
    )
    found = [(part_of(entry.target), entry.late) for entry in imports_of(source)]
    assert found == [
        ("io", False),
        ("_core", False),
        ("<package>", False),
        ("plots", True),
        ("data", False),
    ]


def cpp_includes(path: Path) -> list[tuple[str, str]]:
    """Bracket and name of every include of a C++ file."""
    pattern = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
    return pattern.findall(path.read_text(encoding="utf-8"))


def test_kernels_include_only_the_standard_library() -> None:
    files = sorted((CPP / "mrfast").rglob("*.[ch]pp"))
    assert files
    for path in files:
        for bracket, name in cpp_includes(path):
            if bracket == "<":
                assert re.fullmatch(r"[a-z_]+", name), f"{path.name} includes <{name}>"
            else:
                assert name.startswith("mrfast/"), f'{path.name} includes "{name}"'
                assert (CPP / name).is_file()


def test_one_file_includes_pybind11() -> None:
    including = {
        path.relative_to(CPP).as_posix()
        for path in CPP.rglob("*.[ch]pp")
        if any("pybind11" in name or name == "Python.h" for _, name in cpp_includes(path))
    }
    assert including == {"bindings/pybind.hpp"}


# -------------------------------------------------------------------- names and modules


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_needs_numpy_only() -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import mrfast\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names) - {'mrfast', 'numpy'}))"
    )
    assert run_python(code).strip() == "[]"


def test_public_names_resolve() -> None:
    assert len(set(mrfast.__all__)) == len(mrfast.__all__)
    for name in mrfast.__all__:
        assert getattr(mrfast, name) is not None
    assert dir(mrfast) == sorted(mrfast.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        mrfast.no_such_name  # noqa: B018


def test_type_checkers_see_the_public_names() -> None:
    """The block for type checkers in ``__init__`` names the same things from the same homes."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen: set[str] = set()
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, f"{alias.name}: write 'as {alias.name}'"
            home = importlib.import_module(node.module or "")
            value = getattr(mrfast, alias.name)
            assert isinstance(value, types.ModuleType) or getattr(home, alias.name) is value
            seen.add(alias.name)
    assert seen == set(mrfast.__all__) - {"__version__"}


def test_no_module_bears_the_name_of_a_public_object() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    modules |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    objects = {
        name for name in mrfast.__all__ if not isinstance(getattr(mrfast, name), types.ModuleType)
    }
    assert not {name.lower() for name in modules} & {name.lower() for name in objects}


@pytest.mark.parametrize("path", python_files(), ids=lambda path: dotted(path) or "mrfast")
def test_form_of_modules(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    body = tree.body[1:]
    first = body[0] if body else None
    assert isinstance(first, ast.ImportFrom)
    assert first.module == "__future__"
    private = path.stem.startswith("_") and path.stem != "__init__"
    assigned = {
        target.id
        for node in body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert private or len(body) == 1 or "__all__" in assigned, "no __all__"


def modules_with_all() -> list[str]:
    names = [dotted(path) for path in python_files()]
    return [name for name in names if name and not name.rpartition(".")[2].startswith("_")]


@pytest.mark.parametrize("name", modules_with_all())
def test_all_names_exist(name: str) -> None:
    if name.startswith("nonlinear.networks."):
        pytest.importorskip("torch")
    module = importlib.import_module(f"mrfast.{name}")
    public = getattr(module, "__all__", [])
    assert len(set(public)) == len(public)
    for attribute in public:
        assert hasattr(module, attribute)


# ---------------------------------------------------------------------- the extension


def stub_files() -> list[Path]:
    return sorted((PACKAGE / "_core").glob("*.pyi"))


def public_of(names: Iterator[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def stub_members(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Public definitions of a stub, imported submodules included."""
    members: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            members[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            members[node.target.id] = node
        elif isinstance(node, ast.ImportFrom) and node.level == 1 and node.module is None:
            members |= {alias.name: node for alias in node.names}
    return {name: node for name, node in members.items() if name in public_of(iter(members))}


def signature_of_stub(node: ast.FunctionDef) -> list[str]:
    arguments = node.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    if arguments.kwonlyargs:
        names += ["*", *(a.arg for a in arguments.kwonlyargs)]
    return names


def signature_of_kernel(text: str) -> list[str]:
    """Argument names in the first line of a pybind11 docstring."""
    start = text.index("(") + 1
    depth, begin, pieces = 0, start, []
    for i in range(start, len(text)):
        if text[i] in "([{":
            depth += 1
        elif depth and text[i] in ")]}":
            depth -= 1
        elif not depth and text[i] in ",)":
            pieces.append(text[begin:i].strip())
            begin = i + 1
            if text[i] == ")":
                break
    return [piece.partition(":")[0].strip() for piece in pieces if piece]


@pytest.mark.parametrize("path", stub_files(), ids=lambda path: path.stem)
def test_stubs_match_the_extension(path: Path) -> None:
    module = _core if path.stem == "__init__" else getattr(_core, path.stem)
    stub = stub_members(ast.parse(path.read_text(encoding="utf-8")).body)
    assert set(stub) == public_of(iter(vars(module)))
    for name, node in stub.items():
        value = getattr(module, name)
        if isinstance(node, ast.FunctionDef):
            assert signature_of_stub(node) == signature_of_kernel(value.__doc__)
        elif isinstance(node, ast.ClassDef):
            members = stub_members(node.body)
            assert set(members) == public_of(iter(vars(value))), name
            constructors = [
                entry
                for entry in node.body
                if isinstance(entry, ast.FunctionDef) and entry.name == "__init__"
            ]
            for entry in (*members.values(), *constructors):
                if not isinstance(entry, ast.FunctionDef):
                    continue
                attribute = vars(value)[entry.name]
                is_property = any(ast.unparse(d) == "property" for d in entry.decorator_list)
                assert is_property == isinstance(attribute, property), entry.name
                if not is_property:
                    assert signature_of_stub(entry) == signature_of_kernel(attribute.__doc__), (
                        f"{name}.{entry.name}"
                    )


def test_every_kernel_module_has_a_stub() -> None:
    modules = {name for name, value in vars(_core).items() if isinstance(value, types.ModuleType)}
    assert modules == {path.stem for path in stub_files()} - {"__init__"}


@pytest.mark.parametrize("path", stub_files(), ids=lambda path: path.stem)
def test_kernel_signatures_name_python_types(path: Path) -> None:
    """A C++ type in a docstring means that its class was registered after its use."""
    module = _core if path.stem == "__init__" else getattr(_core, path.stem)
    for value in vars(module).values():
        for attribute in vars(value).values() if isinstance(value, type) else [value]:
            assert "::" not in (getattr(attribute, "__doc__", None) or "")


def test_dispatch_is_reported() -> None:
    config = mrfast.build_config()
    assert set(config) == {"version", "compiler", "dispatch"}
    assert all(isinstance(value, str) and value for value in config.values())


# ------------------------------------------------------------------ versions and words


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == mrfast.__version__ == mrfast.build_config()["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {mrfast.__version__}\n" in citation
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[([^\]]+)\]", changes, re.MULTILINE)
    assert f"\n## [{mrfast.__version__}]" in changes


def test_readme_commands_are_marked() -> None:
    """The blocks of the README that .ci/run executes."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    main, tests = (
        re.search(rf"^<!-- ci: {mark} -->\n+```\w*\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
        for mark in ("main", "test")
    )
    assert main is not None
    assert tests is not None
    assert "mrfast massive " in main[1]
    assert tests[1].endswith("python -m pytest\n")


def project_files() -> list[Path]:
    """Files that git tracks or would track; all sources where there is no git."""
    git = shutil.which("git")
    if git and (ROOT / ".git").exists():
        done = subprocess.run(
            [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            names = done.stdout.decode().split("\0")
            return [ROOT / name for name in names if name and (ROOT / name).is_file()]
    return [path for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.*")]


def test_no_machine_paths() -> None:
    """No absolute path of the machine that something was made on."""
    pattern = re.compile(r"(?<![\w.~$}>-])/(work|tmp/venv|root|home|Users|mnt)/")
    for path in project_files():
        if path.suffix in (".gz", ".png", ".npz", ".pdf"):
            continue
        text = path.read_text(encoding="utf-8")
        found = pattern.search(text)
        assert not found, f"{path.relative_to(ROOT)}: {found[0]!r}"


def test_no_pickle_no_eval_no_shell() -> None:
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    builtins = {"eval", "exec", "compile", "__import__"}
    files = [path for path in project_files() if path.suffix == ".py"]
    assert files
    for path in files:
        if path.parent == ROOT / "tests":  # tests copy objects through pickle; nothing reads files
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                assert not modules & {alias.name.partition(".")[0] for alias in node.names}, where
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in modules, where
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in builtins, where
                assert called not in ("os.system", "os.popen"), where
                assert not called.endswith("read_pickle"), where
                for keyword in node.keywords:
                    if keyword.arg in ("allow_pickle", "shell"):
                        assert ast.unparse(keyword.value) == "False", where


# ------------------------------------------------------------ optional parts, global state


HIDDEN = """
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())

import numpy as np
import mrfast

moments = mrfast.Moments.from_summary(
    beta_exposure=[0.2, 0.3], se_exposure=[0.02, 0.02], n_exposure=5000,
    beta_outcome=[0.1, 0.2], se_outcome=[0.02, 0.02], n_outcome=5000,
    eaf=[0.3, 0.4], beta_observational=0.4,
)
result = mrfast.massive(moments, n_iter=20, n_chains=1, rng=1)
try:
    {call}
except mrfast.errors.MissingExtraError as error:
    assert isinstance(error, ImportError)
    print(error)
"""


@pytest.mark.parametrize(
    ("hidden", "call", "extra"),
    [
        (("matplotlib",), "result.plot()", "plot"),
        (("arviz",), "result.to_arviz(10)", "arviz"),
        (
            ("sqlalchemy",),
            "mrfast.read_omop_cohort('no.db', instruments=['rs1'], outcome_concepts=1)",
            "omop",
        ),
        (("sqlalchemy",), "mrfast.simulation.omop_database()", "omop"),
    ],
    ids=["plot", "arviz", "omop", "omop simulation"],
)
def test_missing_extra_is_named(hidden: tuple[str, ...], call: str, extra: str) -> None:
    message = run_python(HIDDEN.format(hidden=hidden, call=call))
    assert f"mrfast[{extra}]" in message
    assert hidden[0] in message


def test_nothing_else_needs_the_extras() -> None:
    code = HIDDEN.format(hidden=("matplotlib", "arviz", "sqlalchemy"), call="print(result)")
    assert "MassiveResult" in run_python(code)


def test_global_random_state_is_untouched() -> None:
    moments = mrfast.Moments.from_summary(
        beta_exposure=[0.2, 0.3],
        se_exposure=[0.02, 0.02],
        n_exposure=5000,
        beta_outcome=[0.1, 0.2],
        se_outcome=[0.02, 0.02],
        n_outcome=5000,
        eaf=[0.3, 0.4],
        beta_observational=0.4,
    )
    before = np.random.get_state()  # noqa: NPY002
    result = mrfast.massive(moments, n_iter=20, rng=1)
    result.sample(10, rng=1)
    mrfast.massive(moments, n_iter=20).sample(10)
    after = np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]
