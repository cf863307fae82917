"""The password of the bridge's database: from where it comes, and where it shows."""

import os
from pathlib import Path

import pytest
from sqlalchemy import make_url
from tests.postgres import PASSWORD

from letta_matrix.access.database import url_of_database
from letta_matrix.config import Config, ConfigError, load_config
from letta_matrix.store.database import database_url
from letta_matrix.store.postgres_address import hosts_of, place_of

LEAST = """
homeserver: {url: http://localhost:8008, domain: test}
appservice: {as_token: a, hs_token: b}
"""
URL = "postgresql://bridge@db.test/bridge?sslmode=require"


def loaded(folder: Path, section: str = "", **variables: str) -> Config:
    file = folder / "config.yaml"
    file.write_text(f"{LEAST}\n{section}")
    environment = {f"LETTA_MATRIX__DATABASE__{key}": value for key, value in variables.items()}
    return load_config(file, environment)


def test_it_stands_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{PASSWORD}\n")
    config = loaded(tmp_path, f"database: {{url: '{URL}', password_file: secret}}")
    assert (config.database_password, config.database.url) == (PASSWORD, URL)
    assert PASSWORD not in repr(config)


def test_what_an_editor_has_put_before_it_is_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbf" + PASSWORD.encode() + b"\r\n")
    config = loaded(tmp_path, f"database: {{url: '{URL}', password_file: secret}}")
    assert config.database_password == PASSWORD


def test_it_stands_in_the_environment(tmp_path: Path) -> None:
    config = loaded(tmp_path, URL=URL, PASSWORD=PASSWORD)
    assert (config.database_password, config.database.url) == (PASSWORD, URL)


def test_one_in_the_address_is_taken_out_of_it(tmp_path: Path) -> None:
    config = loaded(tmp_path, URL=URL.replace("bridge@", "bridge:p%40ss@"))
    assert (config.database_password, config.database.url) == ("p@ss", URL)
    assert "p@ss" not in repr(config)
    assert "p%40ss" not in repr(config)


@pytest.mark.parametrize("servers", ["db.test", "one.test:1,two.test"])
@pytest.mark.parametrize(
    ("given", "password", "query"),
    [("pa,ss", "pa,ss", ""), ("p%40s", "p@s", "?application_name=a,b@c"), ("p?s", "p?s", "")],
)
def test_it_ends_where_the_servers_begin(
    tmp_path: Path, servers: str, given: str, password: str, query: str
) -> None:
    config = loaded(tmp_path, URL=f"postgresql://us,er:{given}@{servers}/d{query}")
    assert config.database_password == password
    assert config.database.url == f"postgresql://us,er@{servers}/d{query}"
    assert hosts_of(url_of_database(config)) == servers


def test_several_servers_are_named_as_for_psql(tmp_path: Path) -> None:
    config = loaded(
        tmp_path, URL="postgresql://u:secret@one.test:5432,two.test:5433/d?sslmode=require"
    )
    url = url_of_database(config)
    assert (url.username, url.password, url.database) == ("u", "secret", "d")
    assert url.query == {
        "sslmode": "require",
        "host": "one.test,two.test",
        "port": "5432,5433",
    }
    assert hosts_of(url) == "one.test:5432,two.test:5433"


@pytest.mark.parametrize(
    ("address", "who", "servers"),
    [
        ("user:pa,ss@db.test/d", ("user", "pa,ss"), "db.test"),
        ("user:pa,s/s@db.test/d", ("user", "pa,s/s"), "db.test"),
        ("us,er:pa,ss@db.test:1/d", ("us,er", "pa,ss"), "db.test"),
        ("us,er@db.test/d?application_name=a,b@c", ("us,er", None), "db.test"),
        ("us,er:pa,ss@one.test:1,two.test/d", ("us,er", "pa,ss"), "one.test:1,two.test"),
        ("u:p%2Cs%40s@one.test,two.test/d", ("u", "p,s@s"), "one.test,two.test"),
        ("one.test:1,two.test/d?application_name=a@b", (None, None), "one.test:1,two.test"),
        ("u:p@one.test,two.test?application_name=a@b,c", ("u", "p"), "one.test,two.test"),
    ],
)
def test_a_comma_in_front_of_the_servers_is_none_between_them(
    tmp_path: Path, address: str, who: tuple[str | None, str | None], servers: str
) -> None:
    url = database_url(f"postgresql://{address}", tmp_path)
    assert ((url.username, url.password), hosts_of(url)) == (who, servers)


@pytest.mark.parametrize(
    ("address", "query", "place"),
    [
        ("u@%2Frun%2Fpg:5433/d", {"host": "/run/pg", "port": "5433"}, "/run/pg:5433, database d"),
        ("u@/d?host=/run/pg&port=5433", None, "/run/pg:5433, database d"),
        ("u@%2Frun%2Fpg/d", {"host": "/run/pg"}, "/run/pg, database d"),
        (
            "u@[::1]:5432,[::2]/d",
            {"host": "::1,::2", "port": "5432,"},
            "[::1]:5432,[::2], database d",
        ),
        ("u@one,two/d?port=5433", {"host": "one,two", "port": "5433"}, "one:5433,two:5433"),
        ("u@[::1]:5432/d", {}, "[::1]:5432, database d"),
        ("u@[fe80::1%25lo]/d", {"host": "fe80::1%lo"}, "[fe80::1%lo], database d"),
        (
            "u@/d?host=one:5432&host=[::2]:5433&sslmode=require",
            {"host": "one,::2", "port": "5432,5433", "sslmode": "require"},
            "one:5432,[::2]:5433, database d",
        ),
        ("u@/d?host=one&host=two&port=1", {"host": "one,two", "port": "1"}, "one:1,two:1"),
        ("u@/d?host=one:1&host=two&port=1", {"host": ("one:1", "two"), "port": "1"}, ""),
        ("u@/d?host=a:b:c&host=two", {"host": ("a:b:c", "two")}, ""),
        ("u@db.test/a%20b", {}, "db.test, database a b"),
        ("?service=letters", {"service": "letters"}, "the service letters"),
        ("u@/?service=letters&dbname=d", None, "the service letters, database d"),
    ],
)
def test_servers_are_named_in_every_way_of_psql(
    tmp_path: Path, address: str, query: dict[str, str | tuple[str, ...]] | None, place: str
) -> None:
    config = loaded(tmp_path, URL=f"postgresql://{address}")
    url = url_of_database(config)
    assert query is None or url.query == query
    assert place_of(url).startswith(f"PostgreSQL at {place}")
    # As the process that migrates gets it.
    assert make_url(url.render_as_string(hide_password=False)) == url


def test_most_databases_have_none(tmp_path: Path) -> None:
    assert loaded(tmp_path).database_password == ""
    assert loaded(tmp_path, URL="sqlite:///x.db").database_password == ""


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("pipe", "no regular file"),
        ("folder", "no regular file"),
        ("empty", "empty"),
        ("long", "longer than any"),
        ("odd", "no text in UTF-8"),
    ],
)
def test_a_file_that_holds_no_password(tmp_path: Path, kind: str, says: str) -> None:
    path = tmp_path / "secret"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes({"empty": b"\n", "long": b"x" * 5_000, "odd": b"\xff"}[kind])
    with pytest.raises(ConfigError, match=f"should be a file that can be read .*{says}"):
        loaded(tmp_path, URL=URL, PASSWORD_FILE="secret")


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"URL": URL + "&password=secret"}, "should have no password behind its `?`"),
        ({"URL": "postgresql://a:secret@b/c", "PASSWORD": "secret"}, "both have a password"),
        (
            {"URL": URL, "PASSWORD_FILE": "none"},
            "should be a file that can be read .*none: No such file",
        ),
        ({"URL": "mysql://a:secret@b/c"}, "should be sqlite:///FILE or postgresql://"),
        ({"URL": "postgresql:/a:secret@b"}, "should be sqlite:///FILE or postgresql://"),
        ({"URL": "postgresql://a:secret@b:port/c"}, "should be .* postgresql://USER@HOST:PORT/"),
        ({"URL": "postgresql://a:secret@b:1,c:/d"}, "should be .* postgresql://USER@HOST:PORT/"),
    ],
)
def test_what_cannot_be_meant_is_said_without_it(
    tmp_path: Path, variables: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says.replace("?", r"\?")) as caught:
        loaded(tmp_path, **variables)
    assert "secret" not in str(caught.value)
