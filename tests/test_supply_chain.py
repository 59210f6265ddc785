"""Nothing that is read can run code: no pickle in what is written, none in what reads it."""

from __future__ import annotations

import ast
import io
import json
import pickle
import pickletools
import shutil
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import parnet_deploy

PACKAGE = Path(parnet_deploy.__file__).parent
ROOT = PACKAGE.parent

UNSAFE_MODULES = {
    "pickle", "_pickle", "pickletools", "cPickle", "copyreg", "marshal", "shelve", "dbm", "dill",
    "cloudpickle", "joblib", "jsonpickle", "yaml", "code", "codeop", "runpy", "pty",
}  # fmt: skip
"""Modules that run what they read, or come close to it."""

ALLOWED_MODULES = {
    ("export/checkpoint_file.py", "pickle"),  # the class of an exception, nothing else: see below
    ("export/checkpoint_file.py", "pickletools"),  # lists operations; runs none
    ("serve/protocol/messages.py", "copyreg"),  # how Ray sends our messages between our processes
}
ALLOWED_OF_PICKLE = {"pickle.UnpicklingError"}
BUILTINS = {"eval", "exec", "compile", "__import__", "execfile", "input", "breakpoint"}
MUST_SAY = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
"""Readers that are safe only with this argument in so many words."""

NEVER = {
    "numpy.load", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter",
    "torch.export.load", "os.system", "os.popen", "onnx.load", "onnx.load_model",
    "np.fromfile", "np.loads", "np.lib.npyio.NpzFile",
}  # fmt: skip
"""Readers with a safe sister, which is to be used; "onnx.load" follows paths inside the file."""


def faults(source: str, where: str) -> Iterator[str]:
    """What of the above a module does."""
    for node in ast.walk(ast.parse(source)):
        for module in _imported(node):
            if module in UNSAFE_MODULES and (where, module) not in ALLOWED_MODULES:
                yield f"{where}:{node.lineno}: imports {module}"
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if name.startswith("pickle.") and name not in ALLOWED_OF_PICKLE:
            yield f"{where}:{node.lineno}: uses {name}"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in BUILTINS or called in NEVER:
            yield f"{where}:{node.lineno}: calls {called}"
        if called in MUST_SAY:
            name, value = MUST_SAY[called]
            said = {word.arg: word.value for word in node.keywords}.get(name)
            if not (isinstance(said, ast.Constant) and said.value is value):
                yield f"{where}:{node.lineno}: {called} without {name}={value}"
        if called.startswith("subprocess") and any(word.arg == "shell" for word in node.keywords):
            yield f"{where}:{node.lineno}: {called} with a shell"


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        yield node.module.partition(".")[0]


def test_the_package_reads_nothing_that_could_run_code() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 200
    found = [
        fault
        for path in files
        for fault in faults(path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).as_posix())
    ]
    assert found == []


def test_what_is_allowed_is_needed() -> None:
    for name, module in ALLOWED_MODULES:
        tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
        assert module in {found for node in ast.walk(tree) for found in _imported(node)}, name


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import marshal, json",
        "import yaml",
        "pickle.loads(data)",
        "eval('1')",
        "exec(code)",
        "__import__(name)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=safe)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=False)",
        "onnx.load(path)",
        "torch.jit.load(path)",
        "subprocess.run(line, shell=True)",
        "os.system(line)",
    ],
)
def test_each_of_these_would_be_found(line: str) -> None:
    assert list(faults(line, "some/module.py"))


# What is written


def check_safe(name: str, data: bytes) -> None:
    """Raise AssertionError unless this is one of our formats and holds nothing that could run."""
    assert not is_pickle(data), f"{name}: a pickle"
    kind = name.rpartition(".")[2]
    if kind in ("json", "sig"):
        json.loads(data)
    elif kind == "safetensors":
        (length,) = struct.unpack("<Q", data[:8])
        head = json.loads(data[8 : 8 + length])
        dtypes = {about["dtype"] for key, about in head.items() if key != "__metadata__"}
        assert dtypes <= {"F32", "F16", "I64", "U8", "I8"}, name
    elif kind == "npz":
        check_arrays(name, data)
    elif kind == "onnx":
        check_graph(name, data)
    elif kind in ("html", "svg", "txt", "pbtxt"):
        text = data.decode("utf-8")
        assert "<script" not in text.lower(), f"{name}: a script"
    else:
        raise AssertionError(f"{name}: a format of which nothing is known here")


def is_pickle(data: bytes) -> bool:
    """Whether it reads as a pickle from its first byte to a STOP."""
    try:
        for _ in pickletools.genops(data):
            pass
    except (ValueError, IndexError, UnicodeDecodeError, struct.error, OverflowError):
        return False
    return True


def check_arrays(name: str, data: bytes) -> None:
    """A zip of plain arrays: no objects, which numpy would pickle, and no names that lead away."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            assert member.filename.endswith(".npy"), f"{name}: {member.filename}"
            assert "/" not in member.filename
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                assert version == (1, 0), name
                _, _, dtype = np.lib.format.read_array_header_1_0(file)
                assert dtype.kind in "fiu", f"{name}: {dtype}"


def check_graph(name: str, data: bytes) -> None:
    """Standard operators only, and all data inside the file."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(data)
    assert {opset.domain for opset in model.opset_import} <= {"", "ai.onnx", "ai.onnx.ml"}, name
    assert not model.functions
    assert not model.training_info
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        assert tensor.data_location != onnx.TensorProto.EXTERNAL, f"{name}: {tensor.name}"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment on which everything was done that a CPU allows."""
    torch = pytest.importorskip("torch")
    from click.testing import CliRunner

    from parnet_deploy.cli.main import cli

    place = tmp_path_factory.mktemp("full")
    photos = place / "photos"
    for folder in filter(Path.is_dir, (ROOT / "calibration/digits/calibration").iterdir()):
        (photos / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:6]:
            shutil.copy(file, photos / folder.name)
    root = ["--root", str(place / "engines")]
    labels = ROOT / "examples/digits/labels.txt"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("PARNET_TRUSTED_KEYS", raising=False)
            for words in (
                ["fuse", ROOT / "examples/digits/digits.pth.tar", "--name", "digits",
                 "--labels", labels],
                ["calibrate", photos, "--precision", "int8-cpu"],
                ["build", "--placement", "one"],
                ["build", "--backend", "fake", "--gpus", "0,1,2", "--placement", "streams"],
                ["verify"],
                ["bench", "--vs", "none", "--rounds", "2", "--timeline"],
                ["deployment", "keygen", "--key", place / "k", "--public", place / "k.pem"],
                ["deployment", "sign", "--key", place / "k"],
                ["export-triton", "--to", place / "models"],
            ):  # fmt: skip
                arguments = [*map(str, words), *root]
                result = CliRunner().invoke(cli, arguments)
                assert result.exit_code == 0, (words, result.output)
    finally:
        torch.set_num_threads(threads)
    return place / "engines/digits"


@pytest.mark.slow
def test_no_file_of_a_deployment_could_run_code(full: Path) -> None:
    """On which everything was done; its copy for Triton has nothing but its model.py more."""
    from parnet_deploy.deployment import Deployment

    found = Deployment.open(full)
    assert set(found.steps) >= {"fuse", "export", "calibrate", "verify", "bench"}
    assert {step.partition(":")[0] for step in found.steps} >= {"quantize", "build"}
    assert found.verify().foreign == ()
    names = [*found.artifacts, "deployment.json", "deployment.sig"]
    kinds = {name.rpartition(".")[2] for name in names}
    assert kinds >= {"json", "safetensors", "onnx", "npz", "html", "sig"}
    for name in names:
        check_safe(name, (full / name).read_bytes())
    model = full.parent.parent / "models/digits"
    others = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert "1/deployment/deployment.sig" in others
    (code,) = (name for name in others if name.endswith(".py"))
    assert code == "1/model.py"
    for name in others - {code}:
        check_safe(name, (model / name).read_bytes())


def npz(**arrays: object) -> bytes:
    """As numpy writes it."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", pickle.dumps({"a": 1})),
        ("a.json", pickle.dumps({"a": 1}, protocol=0)),
        ("a.npz", npz(x=np.array([object], dtype=object))),
        ("a.npz", npz(x=np.array(["text"]))),
        ("a.html", b"<p><SCRIPT src=x></script>"),
        ("a.pkl", b"anything"),
        ("a.safetensors", struct.pack("<Q", 2) + b"[]"),
    ],
)
def test_a_file_that_could_is_noticed(name: str, data: bytes) -> None:
    with pytest.raises((AssertionError, ValueError, AttributeError)):
        check_safe(name, data)
