"""Where packages come from: pip's settings for those who have not told uv, and never a credential in what is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlflow_azure_backend.environment.indexes import Indexes, has_credentials, read_machine, redact
from mlflow_azure_backend.errors import EnvironmentUnavailable


def configured(tmp_path: Path, text: str, *, name: str = "pip.conf") -> str:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_pip_s_configuration_is_read_in_pip_s_order(tmp_path: Path) -> None:
    (tmp_path / "etc/pip").mkdir(parents=True)
    configured(tmp_path / "etc/pip", "[global]\nindex-url = https://system/simple\ntrusted-host = a b\n")
    named = configured(
        tmp_path,
        "[global]\nfind_links =\n    /opt/a\n    https://host/b\nextra-index-url = https://one/simple https://two/simple\n"
        "constraint = /opt/c.txt\n[install]\nno-index = true\n[list]\nindex-url = https://not/this\n",
    )
    machine = read_machine(
        {
            "PIP_CONFIG_FILE": named,
            "XDG_CONFIG_DIRS": str(tmp_path / "etc"),
            "PIP_EXTRA_INDEX_URL": "https://three/simple",
            "PIP_CERT": "/opt/cert.pem",
            "PIP_DEFAULT_TIMEOUT": "180",
        }
    )
    assert machine.indexes == Indexes(
        index_url="https://system/simple",
        extra_index_urls=("https://three/simple",),
        find_links=("/opt/a", "https://host/b"),
        no_index=True,
        trusted_hosts=("a", "b"),
    )
    assert machine.constraints == ("/opt/c.txt",)
    assert machine.variables == {
        "SSL_CERT_FILE": "/opt/cert.pem",
        "UV_HTTP_TIMEOUT": "180",
    }
    sources = machine.sources(Indexes(trusted_hosts=("c",)), folder=tmp_path, environ={})
    assert sources.variables["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert sources.variables["UV_INSECURE_HOST"] == "c a b"
    assert sources.lines == ("--no-index", "--find-links https://host/b")


def test_paths_in_pip_s_configuration_start_from_the_current_folder_or_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    machine = read_machine({"PIP_FIND_LINKS": "here ~/there", "PIP_CONFIG_FILE": os.devnull})
    assert machine.indexes.find_links == (str(tmp_path / "here"), str(tmp_path / "home/there"))


@pytest.mark.parametrize(
    "told",
    [
        {"UV_DEFAULT_INDEX": "https://mine/simple"},
        {"UV_FIND_LINKS": "/opt/mine"},
        {"UV_CONFIG_FILE": "index-url = 'https://mine/simple'\n"},
        {"UV_CONFIG_FILE": "[[index]]\nurl = 'https://mine/simple'\n"},
    ],
)
def test_who_has_told_uv_where_to_look_is_left_alone(tmp_path: Path, told: dict[str, str]) -> None:
    if "UV_CONFIG_FILE" in told:
        told = {"UV_CONFIG_FILE": configured(tmp_path, told["UV_CONFIG_FILE"], name="uv.toml")}
    environ = {"PIP_INDEX_URL": "https://pip/simple", "PIP_CERT": "/opt/cert.pem", "PIP_CONFIG_FILE": os.devnull}
    machine = read_machine({**environ, **told})
    assert machine.indexes == Indexes()
    assert machine.variables == {"SSL_CERT_FILE": "/opt/cert.pem"}
    assert read_machine(environ).indexes.index_url == "https://pip/simple"


def test_the_fingerprint_follows_the_settings_not_the_credentials(tmp_path: Path) -> None:
    def fingerprint(**environ: str) -> str:
        return read_machine({"PIP_CONFIG_FILE": os.devnull, "XDG_CONFIG_HOME": str(tmp_path), **environ}).fingerprint

    bound = configured(tmp_path, "six<2", name="bound.txt")
    settings = [
        {},
        {"PIP_INDEX_URL": "https://u:one@host/simple"},
        {"UV_DEFAULT_INDEX": "https://host/simple"},
        {"UV_EXCLUDE_NEWER": "2024-01-01"},
        {"PIP_CONSTRAINT": bound},
    ]
    assert len({fingerprint(**environ) for environ in settings}) == len(settings)
    assert fingerprint(PIP_INDEX_URL="https://u:one@host/simple") == fingerprint(PIP_INDEX_URL="https://host/simple")
    tomls = [
        configured(tmp_path, f"index-url = 'https://{user}host/simple'", name=f"{number}.toml")
        for number, user in enumerate(("u:one@", "u:two@", ""))
    ]
    assert len({fingerprint(UV_CONFIG_FILE=toml) for toml in tomls}) == 1
    before = fingerprint(PIP_CONSTRAINT=bound)
    configured(tmp_path, "six<1", name="bound.txt")
    assert fingerprint(PIP_CONSTRAINT=bound) != before


@pytest.mark.parametrize("text", ["no section\n", "[global]\nx\n"])
def test_a_broken_configuration_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(EnvironmentUnavailable, match="pip's configuration cannot be read") as caught:
        read_machine({"PIP_CONFIG_FILE": configured(tmp_path, text)})
    assert caught.value.where == str(tmp_path / "pip.conf")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://user:secret@host/simple/", "see https://***@host/simple/"),
        ("https://token@host/a`", "https://***@host/a`"),
        ("ftp://u:p@w@host/x", "ftp://***@host/x"),
        ("git+ssh://git@host/x", "git+ssh://git@host/x"),
        ("git+ssh://git:secret@host/x", "git+ssh://***@host/x"),
        ("https://host/w?sig=secret, or", "https://host/w?*** or"),
        ("mail a@b or a/b@c?", "mail a@b or a/b@c?"),
    ],
)
def test_credentials_are_taken_out_of_text(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert has_credentials(text) is (text != expected)
