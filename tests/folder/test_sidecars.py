"""The small files: which are copied, what of them is repaired, and what of config.json is rewritten."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import ConfigError, CorruptCheckpoint, SourceError
from converter.folder import chat_templates, sidecars, tokenizer_files
from converter.folder.files import write_json
from converter.folder.sidecars import copy_sidecars, left_behind, lies_beside, rewrite_config, sidecars_of
from converter.folder.tokenizer_files import SIDECARS, sidecars_in


def folders(tmp_path: Path, **content: str) -> tuple[Path, Path]:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for name, text in content.items():
        (source / name.replace("__", ".")).write_text(text, "utf-8")
    return source, target


def test_takes_tokenizer_and_processor_files_only(tmp_path: Path) -> None:
    source, target = folders(
        tmp_path, vocab__txt="a\nb", tokenizer__json="{}", modeling_evil__py="print()", model__safetensors="x",
        config__json="{}", conversion__json="{}", README__md="hello",
    )  # fmt: skip
    assert copy_sidecars((source,), target, for_version_4=True) == (("tokenizer.json", "vocab.txt"), ())
    assert sorted(path.name for path in target.iterdir()) == ["tokenizer.json", "vocab.txt"]
    assert (target / "vocab.txt").read_bytes() == b"a\nb"


def test_a_tokenizer_has_files_by_names_of_its_own(tmp_path: Path) -> None:
    """tiktoken's, and those that the tokenizer's config names; a missing file, or one that nothing names, is not copied."""
    said = {"vocab_file": "my.words", "merges_file": "not there.txt", "special_tokens_map_file": "/home/a/x.json"}
    source, target = folders(
        tmp_path, my__words="a", qwen__tiktoken="YQ== 0", other__words="b", tokenizer_config__json=json.dumps(said)
    )
    (source / ".hidden.tiktoken").touch()
    (source / "folder.tiktoken").mkdir()
    taken = ("my.words", "qwen.tiktoken", "tokenizer_config.json")
    assert sidecars_of((source,)) == taken
    assert copy_sidecars((source,), target, for_version_4=False)[0] == taken
    assert sorted(path.name for path in target.iterdir()) == list(taken)
    assert (target / "my.words").read_text() == "a"
    (target / "my.words").write_text("c")
    assert sidecars.differing(source, target) == ("my.words",)  # a changed config is a copy


TEMPLATES = "additional_chat_templates"


def with_templates(folder: Path, *names: str) -> tuple[str, ...]:
    """Puts files into the folder of chat templates; gives their names as a manifest has them."""
    (folder / TEMPLATES).mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / TEMPLATES / name).write_text(f"{{{{ messages }}}} {name!r}", "utf-8")
    return tuple(f"{TEMPLATES}/{name}" for name in names)


def test_a_tokenizer_has_chat_templates_in_a_folder(tmp_path: Path) -> None:
    """Plain files by the names that transformers looks for; what else lies there, or as a folder is called so, stays."""
    source, target = folders(tmp_path, vocab__txt="a", chat_template__jinja="one")
    taken = with_templates(source, "größe.jinja", "rag.jinja", "tool use.jinja")
    others = with_templates(source, "README.md", "x.JINJA", "a\\b.jinja", "a\n.jinja", "a\u202e.jinja")
    with_templates(source, ".hidden.jinja", "._rag.jinja")
    (source / TEMPLATES / "folder.jinja").mkdir()
    (source / TEMPLATES / "old").mkdir()
    (source / TEMPLATES / "old" / "x.jinja").touch()
    copied = tuple(sorted((*taken, "chat_template.jinja", "vocab.txt")))
    assert sidecars_of((source,)) == copied
    assert copy_sidecars((source,), target, for_version_4=True) == (copied, ())
    assert {path.name: path.read_text("utf-8") for path in (target / TEMPLATES).iterdir()} == {
        name: f"{{{{ messages }}}} {name!r}" for name in ("größe.jinja", "rag.jinja", "tool use.jinja")
    }
    left = {*others, f"{TEMPLATES}/folder.jinja/", f"{TEMPLATES}/old/"}
    assert set(left_behind(lies_beside(source), copied)) == left
    assert sidecars.differing(source, target) == ()
    (target / taken[1]).write_text("other")
    assert sidecars.differing(source, target) == (taken[1],)


@pytest.mark.parametrize("kind", ["file", "link to nowhere", "loop", "empty"])
def test_what_is_no_folder_of_chat_templates(tmp_path: Path, kind: str) -> None:
    source, target = folders(tmp_path, vocab__txt="a")
    if kind in ("file", "empty"):
        (source / TEMPLATES).touch() if kind == "file" else (source / TEMPLATES).mkdir()
    else:
        (source / TEMPLATES).symlink_to(TEMPLATES if kind == "loop" else "nowhere")
    assert copy_sidecars((source,), target, for_version_4=True)[0] == ("vocab.txt",)
    left = f"{TEMPLATES}/" if kind == "empty" else TEMPLATES
    assert left_behind(lies_beside(source), ("vocab.txt",)) == (left,)


@pytest.mark.parametrize("what", [TEMPLATES, f"{TEMPLATES}/rag.jinja"])
def test_chat_templates_that_are_a_link_out_of_the_folder(tmp_path: Path, what: str) -> None:
    source, target = folders(tmp_path)
    with_templates(source, "rag.jinja")
    moved = (source / what).rename(tmp_path / "secret")
    (source / what).symlink_to(moved)
    secret = moved if moved.is_file() else moved / "rag.jinja"
    with pytest.raises(CorruptCheckpoint) as caught:
        copy_sidecars((source,), target, for_version_4=True)
    assert str(caught.value) == (
        f"{source / TEMPLATES / 'rag.jinja'}: a link out of its folder, to {secret}; copy the file itself into the folder"
    )


def test_chat_templates_are_few_and_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = folders(tmp_path)
    taken = with_templates(source, "a.jinja", "b.jinja", "c.jinja")
    monkeypatch.setattr(chat_templates, "MAX_CHAT_TEMPLATES", 2)
    assert sidecars_in(source) == taken[:2]
    assert left_behind(lies_beside(source), sidecars_in(source)) == taken[2:]
    monkeypatch.setattr(sidecars, "MAX_CHAT_TEMPLATE_BYTES", 10)
    with pytest.raises(SourceError) as caught:
        copy_sidecars((source,), target, for_version_4=True)
    assert str(caught.value) == f"{source / taken[0]}: larger than 10 bytes, too large for such a file; remove it"


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt", "/etc/passwd.txt", "a/b.txt", "a\\b.txt", "..", ".env", ".ssh", "secret", "Config.json",
        "open_clip_config.json", "conversion.json", "parity.json", "README.md", "tokenization_mine.py", "vocab.PKL",
        "model.safetensors", "tf_model.h5", "model.safetensors.index.json", "a\n.txt", "a\u202e.txt",
        "x" * 300 + ".txt", "\ud800.txt",
        7, None, ["my.words"], {"a": "my.words"},
    ],
)  # fmt: skip
def test_what_a_tokenizer_config_must_not_name(tmp_path: Path, name: object) -> None:
    """Such a file stays where it is, though it is there; the config itself is copied as it is."""
    source, target = folders(tmp_path, my__words="a", tokenizer_config__json=json.dumps({"vocab_file": name}))
    for other in ("../secret.txt", "a/b.txt", ".env", ".ssh", "secret", "Config.json", "open_clip_config.json"):
        (source / other).parent.mkdir(exist_ok=True)
        (source / other).write_text("{}")
    for other in ("conversion.json", "parity.json", "README.md", "tokenization_mine.py", "vocab.PKL", "tf_model.h5"):
        (source / other).write_text("{}")
    for other in ("model.safetensors", "model.safetensors.index.json", "a\\b.txt", "a\n.txt"):
        (source / other).write_text("{}")
    assert copy_sidecars((source,), target, for_version_4=False)[0] == ("tokenizer_config.json",)
    assert [path.name for path in target.iterdir()] == ["tokenizer_config.json"]


def test_a_named_file_that_is_a_link_out_of_the_folder(tmp_path: Path) -> None:
    source, target = folders(tmp_path, tokenizer_config__json='{"vocab_file": "my.words"}')
    (tmp_path / "secret").write_text("password")
    (source / "my.words").symlink_to(tmp_path / "secret")
    with pytest.raises(CorruptCheckpoint, match=r"my\.words: a link out of its folder"):
        copy_sidecars((source,), target, for_version_4=True)
    assert list(target.iterdir()) == []


def test_of_names_of_their_own_there_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.tiktoken", "b.tiktoken", "c.tiktoken"):
        (tmp_path / name).touch()
    monkeypatch.setattr(tokenizer_files, "MAX_OWN_NAMES", 2)
    assert sidecars_in(tmp_path) == ("a.tiktoken", "b.tiktoken")
    assert left_behind(lies_beside(tmp_path), sidecars_in(tmp_path)) == ("c.tiktoken",)


def test_of_two_the_tokenizer_of_the_first_and_the_pictures_of_the_second(tmp_path: Path) -> None:
    source, target = folders(tmp_path, vocab__txt="first", preprocessor_config__json="first")
    other = tmp_path / "other"
    other.mkdir()
    for name in ("vocab.txt", "merges.txt", "preprocessor_config.json", "processor_config.json"):
        (other / name).write_text("second")
    assert copy_sidecars((source, other), target, for_version_4=False)[0] == (
        "preprocessor_config.json", "processor_config.json", "vocab.txt",
    )  # fmt: skip
    assert {path.name: path.read_text() for path in target.iterdir()} == {
        "vocab.txt": "first",
        "preprocessor_config.json": "second",
        "processor_config.json": "second",
    }


def test_of_none_nothing(tmp_path: Path) -> None:
    assert copy_sidecars((), tmp_path, for_version_4=True) == ((), ())


NEW = {
    "tokenizer_class": "TokenizersBackend",
    "extra_special_tokens": ["<s>NOTUSED", "è"],
    "model_max_length": 64,
}
MENDED = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": 64,
    "additional_special_tokens": ["<s>NOTUSED", "è"],
}


def test_what_5_writes_is_mended_for_4(tmp_path: Path) -> None:
    source, target = folders(tmp_path, tokenizer_config__json=json.dumps(NEW))
    copied, rewritten = copy_sidecars((source,), target, for_version_4=True)
    assert copied == ("tokenizer_config.json",)
    assert rewritten == (
        "tokenizer_config.json: extra_special_tokens -> additional_special_tokens",
        "tokenizer_config.json: tokenizer_class: TokenizersBackend -> PreTrainedTokenizerFast",
    )
    assert json.loads((target / "tokenizer_config.json").read_text("utf-8")) == MENDED
    assert json.loads((source / "tokenizer_config.json").read_text("utf-8")) == NEW


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer_class": "BertTokenizer"},
        {"extra_special_tokens": {"image_token": "<img>"}},
        {"extra_special_tokens": ["a"], "additional_special_tokens": ["b"]},
    ],
)
def test_what_4_opens_is_left_alone(tmp_path: Path, config: dict[str, Any]) -> None:
    text = json.dumps(config, indent=7)
    source, target = folders(tmp_path, tokenizer_config__json=text)
    assert copy_sidecars((source,), target, for_version_4=True)[1] == ()
    assert (target / "tokenizer_config.json").read_text() == text


def test_towards_pytorch_nothing_is_mended(tmp_path: Path) -> None:
    source, target = folders(tmp_path, tokenizer_config__json=json.dumps(NEW))
    assert copy_sidecars((source,), target, for_version_4=False)[1] == ()
    assert json.loads((target / "tokenizer_config.json").read_text("utf-8")) == NEW


def test_a_broken_tokenizer_config(tmp_path: Path) -> None:
    source, target = folders(tmp_path, tokenizer_config__json="{")
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json: not JSON: .*; restore it from the original$"):
        copy_sidecars((source,), target, for_version_4=True)


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecars, "MAX_SIDECAR_BYTES", 1000)
    source, target = folders(tmp_path, vocab__txt="x" * 1001)
    with pytest.raises(SourceError) as caught:
        copy_sidecars((source,), target, for_version_4=True)
    assert str(caught.value) == f"{source / 'vocab.txt'}: larger than 1,000 bytes, too large for such a file; remove it"


def test_a_link_out_of_the_folder(tmp_path: Path) -> None:
    source, target = folders(tmp_path)
    (tmp_path / "secret").write_text("password")
    (source / "vocab.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(CorruptCheckpoint) as caught:
        copy_sidecars((source,), target, for_version_4=True)
    assert str(caught.value) == (
        f"{source / 'vocab.txt'}: a link out of its folder, to {tmp_path / 'secret'}; copy the file itself into the "
        "folder"
    )
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("module", ["", "0_CLIPModel", "deep/er/still"])
def test_a_snapshot_of_the_hub_links_to_its_blobs(tmp_path: Path, module: str) -> None:
    blobs, source, target = (tmp_path / name for name in ("m/blobs", f"m/snapshots/0123/{module}", "target"))
    for folder in (blobs, source / TEMPLATES, target):
        folder.mkdir(parents=True)
    (blobs / "abc").write_text("vocabulary")
    for name in ("vocab.txt", f"{TEMPLATES}/x.jinja"):
        (source / name).symlink_to(blobs / "abc")
        assert name in copy_sidecars((source,), target, for_version_4=False)[0]
        assert (target / name).read_text() == "vocabulary"
        assert not (target / name).is_symlink()


def test_what_no_longer_is_quantised_is_not_said_to_be() -> None:
    config, rewritten = rewrite_config({"quantization_config": {"quant_method": "bitsandbytes"}, "a": 1}, {}, None)
    assert config == {"a": 1}
    assert rewritten == ("config.json: quantization_config: left out, the weights are not quantised",)
    assert rewrite_config({"quantization_config": None}, {}, None)[1] == ()


def test_logit_scale_goes_into_the_config() -> None:
    raw = {"b": 1, "logit_scale_init_value": 2.6592, "a": 2}
    config, rewritten = rewrite_config(raw, {"logit_scale_init_value": 3.309999942779541}, "float32")
    assert list(config.items()) == [("b", 1), ("logit_scale_init_value", 3.309999942779541), ("a", 2)]
    assert rewritten == ("config.json: logit_scale_init_value: 2.6592 -> 3.309999942779541",)
    assert raw["logit_scale_init_value"] == 2.6592


def test_logit_scale_of_a_config_that_is_silent() -> None:
    config, rewritten = rewrite_config({}, {"logit_scale_init_value": 3.5}, None)
    assert config == {"logit_scale_init_value": 3.5}
    assert rewritten == ("config.json: logit_scale_init_value: absent -> 3.5",)


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_no_config_says_nan(scale: float) -> None:
    assert rewrite_config({"logit_scale_init_value": 2.0}, {"logit_scale_init_value": scale}, None) == (
        {"logit_scale_init_value": 2.0},
        (),
    )


@pytest.mark.parametrize("field", ["dtype", "torch_dtype"])
def test_dtype_follows_the_tensors(field: str) -> None:
    config, rewritten = rewrite_config({field: "bfloat16", "logit_scale_init_value": 1.0}, {}, "float32")
    assert config[field] == "float32"
    assert rewritten == (f'config.json: {field}: "bfloat16" -> "float32"',)
    assert rewrite_config({field: "bfloat16"}, {}, None) == ({field: "bfloat16"}, ())
    assert rewrite_config({field: None}, {}, "float32") == ({field: None}, ())


text = st.text(st.characters(), max_size=9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
)


@given(st.dictionaries(text, json_values, max_size=4))
def test_json_there_and_back(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
    """Whatever JSON can say can be written, half a surrogate pair too."""
    path = tmp_path_factory.mktemp("json") / "config.json"
    write_json(path, value)
    assert json.loads(path.read_text("utf-8")) == value
    assert path.read_bytes().endswith(b"}\n")


def test_copies_are_told_from_others_and_a_mended_one_is_a_copy(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
            (tmp_path / folder / name).write_text("{}")
    (tmp_path / "one" / "merges.txt").write_text("only here")
    (tmp_path / "one" / "README.md").write_text("no such file")
    assert sidecars.differing(tmp_path / "one", tmp_path / "other") == ()
    (tmp_path / "one" / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    (tmp_path / "other" / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    assert sidecars.differing(tmp_path / "one", tmp_path / "other") == ()
    (tmp_path / "other" / "vocab.txt").write_text("[]")
    (tmp_path / "other" / "tokenizer_config.json").write_text("no JSON")
    assert sidecars.differing(tmp_path / "one", tmp_path / "other") == ("tokenizer_config.json", "vocab.txt")


@pytest.mark.torch
def test_every_vocabulary_of_transformers_goes_along() -> None:
    """What the tokenizer classes of the installed transformers call their files; a pickle is never a vocabulary here."""
    import transformers

    named: set[str] = set()
    for path in Path(transformers.__file__).parent.rglob("tokenization*.py"):
        for table in re.findall(r"VOCAB_FILES_NAMES\s*(?::[^=]+)?=\s*\{(.*?)\}", path.read_text("utf-8"), re.DOTALL):
            named.update(re.findall(r':\s*"([^"]+)"', table))
    assert {"bpe.codes", "vocab.txt", "spiece.model"} <= named
    assert {name for name in named if not name.endswith((".pkl", ".bin"))} <= set(SIDECARS)


def test_what_lies_beside_weights_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder all of it; around a single file, what seems to be of a tokenizer or processor."""
    for name in ("model.safetensors", "config.json", "model.safetensors.index.json", "vocab.txt", "my_vocab.bpe2"):
        (tmp_path / name).touch()
    for name in ("README.md", "tokenization_mine.py", ".gitattributes", "conversion.json", "parity.json"):
        (tmp_path / name).touch()
    (tmp_path / TEMPLATES).mkdir()
    (tmp_path / ".git").mkdir()
    taken = {"model.safetensors", "vocab.txt"}
    of_tokenizers = (f"{TEMPLATES}/", "my_vocab.bpe2", "tokenization_mine.py")
    assert left_behind(lies_beside(tmp_path), taken) == ("README.md", *of_tokenizers)
    assert left_behind(lies_beside(tmp_path / "model.safetensors"), taken) == of_tokenizers
    monkeypatch.setattr(sidecars, "MAX_LEFT_BEHIND", 2)
    assert left_behind(lies_beside(tmp_path), taken) == ("README.md", f"{TEMPLATES}/")


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("/home/alice/run-7", True), ("~/run-7", True), ("./run-7", True), ("../run-7", True), ("a/b/c", True),
        ("C:\\Users\\alice", True), ("bert-base-uncased", False), ("google/vit-base-patch16-224", False), ("", False),
        (None, False), (7, False),
    ],
)  # fmt: skip
def test_paths_are_told_from_ids(value: object, place: bool) -> None:
    assert sidecars.is_place(value) == place
