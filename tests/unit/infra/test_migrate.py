import re
from pathlib import Path

import pytest

from infra import buckets, kafka_topics, migrate
from infra.settings import Settings
from schemas.errors import Defect
from schemas.tables import STATE_KEYSPACE, STATE_TABLES


def test_a_file_is_cut_at_semicolons_outside_of_strings_and_comments() -> None:
    text = (
        "-- one; two\nCREATE TABLE a (b text) WITH comment = 'it''s; so';\n\n"
        "  -- x\nINSERT INTO a (b)\nVALUES ('-- y\n-- z');\n"
    )
    assert migrate.statements(text) == [
        "CREATE TABLE a (b text) WITH comment = 'it''s; so'",
        "INSERT INTO a (b)\nVALUES ('-- y\n-- z')",
    ]
    assert migrate.statements("-- nothing\n") == []


def test_files_come_in_the_order_of_their_numbers_and_a_number_once(tmp_path: Path) -> None:
    for name in ("0010_c.cql", "0002_b.cql", "readme.txt"):
        (tmp_path / name).write_text("")
    assert [n for n, _ in migrate.files(tmp_path)] == [2, 10]
    (tmp_path / "0002_again.cql").write_text("")
    with pytest.raises(Defect, match="the same number"):
        migrate.files(tmp_path)


def test_the_state_s_files_make_what_the_table_of_tables_says() -> None:
    made: list[str] = []
    for _, path in migrate.files():
        if path.name != migrate.VIEWS_FILE:
            made += migrate.statements(path.read_text(encoding="utf-8"))
    for added in [s for s in made if s.startswith("ALTER")]:
        name, column = re.fullmatch(r"ALTER TABLE (\S+) ADD (\w+ \w+)", added).groups()  # type: ignore[union-attr]
        at = next(n for n, s in enumerate(made) if s.startswith(f"CREATE TABLE IF NOT EXISTS {name} "))
        made[at] = made[at].replace("\n    PRIMARY KEY", f"\n    {column},\n    PRIMARY KEY")
    tables = sorted(t.create(STATE_KEYSPACE).rstrip(";") for t in STATE_TABLES)
    assert sorted(s for s in made if s.startswith("CREATE")) == tables


def test_topics_are_kept_for_ever_and_durable_on_one_node() -> None:
    one = kafka_topics.configs(Settings())
    assert (one["retention.ms"], one["cleanup.policy"], one["flush.messages"]) == ("-1", "delete", "1")
    assert one["message.timestamp.type"] == "LogAppendTime"
    assert one["min.insync.replicas"] == "1"
    three = kafka_topics.configs(Settings(kafka_replication=3, kafka_flush_messages=0))
    assert three["min.insync.replicas"] == "2"
    assert "flush.messages" not in three


def test_only_projectors_write_read_models() -> None:
    assert [role for role, (views, _) in migrate.GRANTS.items() if "MODIFY" in views] == ["worker"]
    assert migrate.GRANTS["gateway"][0] == ("SELECT",)  # the DICOM door answers queries, too


def test_what_must_not_be_deleted_has_a_policy_that_says_so() -> None:
    undeletable = {b.setting for b in buckets.BUCKETS if b.undeletable}
    assert undeletable == {"bucket_packs", "bucket_archive", "bucket_anchors"}
    assert {b.setting for b in buckets.BUCKETS if b.locked} == {"bucket_archive"}
    for bucket in buckets.BUCKETS:
        statements = buckets.policy(bucket, "x")["Statement"]
        denied = {a for s in statements for a in s["Action"]}
        assert {(s["Effect"], s["Principal"]) for s in statements} == {("Deny", "*")}
        assert "s3:PutBucketVersioning" in denied
        assert ("s3:DeleteObjectVersion" in denied) is bucket.undeletable
