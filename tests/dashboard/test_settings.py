from __future__ import annotations

import pytest

from dashboard.errors import InvalidSetting
from dashboard.settings import Settings


def test_without_flags_and_variables_the_defaults_hold() -> None:
    assert Settings.from_env({}) == Settings()
    assert Settings().host == "127.0.0.1", "only this machine, unless asked for"
    assert not Settings().public


def test_a_variable_is_read_and_a_flag_goes_first() -> None:
    environ = {"KEEPMAP_PORT": "8000", "KEEPMAP_PUBLIC": "yes", "KEEPMAP_MODEL": ""}
    assert Settings.from_env(environ).port == 8000
    assert Settings.from_env(environ).public is True
    assert Settings.from_env(environ).model == "embedded", "an empty variable is none"
    assert Settings.from_env(environ, port=9000, public=None).port == 9000


@pytest.mark.parametrize(
    ("environ", "flags", "said"),
    [
        ({"KEEPMAP_PORT": "many"}, {}, "KEEPMAP_PORT must be a whole number, got 'many'"),
        ({"KEEPMAP_PUBLIC": "maybe"}, {}, "KEEPMAP_PUBLIC must be true or false, got 'maybe'"),
        ({}, {"port": 0}, "port must lie in 1 to 65535, got 0"),
        ({}, {"port": "80"}, "port must be a whole number, got '80'"),
        ({}, {"repeats": True}, "repeats must be a whole number, got True"),
        ({}, {"db": "keepmap.db"}, "db must be an SQLAlchemy URL, got 'keepmap.db'"),
        ({}, {"colour": "red"}, "there is no setting 'colour'"),
    ],
)
def test_a_bad_value_is_refused_with_what_is_allowed(
    environ: dict[str, str], flags: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidSetting, match=said):
        Settings.from_env(environ, **flags)


def test_the_table_has_a_row_per_setting_with_flag_variable_default_and_meaning() -> None:
    rows = {row[0]: row[1:] for row in Settings.table()}
    assert rows["--jobs-per-visitor"][0] == "KEEPMAP_JOBS_PER_VISITOR"
    assert rows["--public"][1] == "false"
    assert len(rows) == len(Settings.__dataclass_fields__)
    assert all(row[2].endswith(".") for row in rows.values()), "each says what it does in a sentence"


def test_the_store_is_named_without_its_password() -> None:
    assert Settings().store_name == "keepmap.db"
    assert Settings(db="postgresql+psycopg://user:secret@host/papers?sslmode=require").store_name == "papers"
