"""Files as they really are: every record that can be used is, and every other one is counted by its reason."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.demo.columns import Columns
from ekko.ops.demo.features import BIAS, feature_key
from ekko.ops.demo.table_file import read_table
from ekko.schemas.errors import ConfigurationError

RATINGS = Columns.parse("user=userId,item=movieId,time=timestamp,label=rating>=4")


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "data.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def key(field: str, value: str) -> int:
    return feature_key(field, value)


def test_titles_with_commas_quotes_and_line_breaks(write):
    read = read_table(
        write(
            "userId,movieId,title,rating,timestamp\n"
            'ann,tt1,"Good, the Bad and the Ugly, The",5,10\n'
            'bob,tt2,"The ""Other""\nOne",3,20\n'
            "ann,tt3,Plain,4,30\n"
        ),
        RATINGS,
    )
    assert read.labels.tolist() == [1, 0, 1]
    assert read.timestamps.tolist() == [10, 20, 30]
    assert read.keys.tolist() == [
        [key(*BIAS), key("user", user), key("item", item)]
        for user, item in (("ann", "tt1"), ("bob", "tt2"), ("ann", "tt3"))
    ]
    assert (read.values == 1).all()
    assert read.dropped == {}


def test_everything_dirty_is_counted_by_its_reason(write):
    read = read_table(
        write(
            "userId,movieId,rating,timestamp\n"
            "a,1,5,100\n"
            ",1,5,101\n"  # missing
            "a,NaN,5,102\n"
            "-1,1,5,103\n"
            "a,2,,104\n"  # label
            "a,2,five,105\n"
            "a,2,nan,105\n"
            "a,2,5,\n"  # time
            "a,2,5,yesterday\n"
            "a,2,5,-7\n"
            "a,2,5,inf\n"
            "a,2,5\n"  # malformed
            "a,2,5,106,more\n"
            "\n"  # no record at all
            "a,1,5,100\n"  # duplicates
            "a,1,2,100\n"
            "b,3,1,90\n"  # out of order
        ),
        RATINGS,
    )
    assert read.timestamps.tolist() == [90, 100]
    assert read.labels.tolist() == [0, 1]
    assert read.dropped == {
        "user or item missing": 3,
        "label not understood": 3,
        "time not understood": 4,
        "malformed record": 2,
        "duplicate of an earlier record": 2,
    }
    assert read.notice.startswith("Your own data. 1 records stood before")


def test_equal_times_keep_the_order_of_the_file_and_coming_again_later_counts(write):
    read = read_table(
        write("userId,movieId,rating,timestamp\nb,1,5,7\na,1,1,7\nb,1,5,9\na,2,5,3\n"),
        RATINGS,
    )
    assert read.timestamps.tolist() == [3, 7, 7, 9]
    assert read.labels.tolist() == [1, 1, 0, 1]
    assert read.dropped == {}


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("1::5::5::978300760\n2::6::3::978300761\n", "user=1,item=2,label=3>=4,time=4"),
        ("1\t5\t5\t978300760\n2\t6\t3\t978300761\n", "user=1,item=2,label=3>=4,time=4"),
        (
            "u:token\ti:token\tr:float\tt:float\n1\t5\t5\t978300760\n2\t6\t3\t978300761.0\n",
            "user=u,item=i,label=r>=4,time=t",
        ),
        (
            "\ufeffu;i;click;t\r\n1;5;1;2000-12-31T22:12:40\r\n2;6;0;2001-01-01T00:12:41+02:00\r\n",
            "user=u,item=i,label=click,time=t",
        ),
    ],
    ids=["MovieLens 1M", "MovieLens 100K", "typed header", "semicolons, BOM, CRLF, ISO times"],
)
def test_formats_that_are_about(write, text: str, columns: str):
    read = read_table(write(text), Columns.parse(columns))
    assert read.timestamps.tolist() == [978300760, 978300761]
    assert read.labels.tolist() == [1, 0]
    assert read.keys[:, 1].tolist() == [key("user", "1"), key("user", "2")]
    assert read.dropped == {}


def test_letters_of_another_encoding_matter_only_in_ids(write):
    read = read_table(
        write("userId,movieId,title,rating,timestamp\na,1,Am\xe9lie,5,1\nRen\xe9,1,x,5,2\n".encode("latin-1")), RATINGS
    )
    assert len(read) == 1
    assert read.dropped == {"user or item missing": 1}


def test_a_quote_that_never_ends_does_not_take_what_was_before_it(write):
    text = "userId,movieId,rating,timestamp\na,1,5,1\n" + 'b,2,5,"2\n' + "c,3,5,3\n" * 5
    read = read_table(write(text), RATINGS)
    assert read.timestamps.tolist() == [1]
    assert sum(read.dropped.values()) >= 1


def test_a_field_beyond_the_reader_s_limit_is_one_malformed_record(write):
    text = "userId,movieId,rating,timestamp\n" + f"a,{'9' * 200_000},5,1\n" + "b,2,5,2\n"
    read = read_table(write(text), RATINGS)
    assert read.dropped["malformed record"] >= 1


def test_the_stream_survives_saving(write, tmp_path: Path):
    read = read_table(write("userId,movieId,rating,timestamp\nö,Ω,5,1\n"), RATINGS)
    read.save(tmp_path / "stream.npz")
    again = read.load(tmp_path / "stream.npz")
    assert np.array_equal(again.keys, read.keys)
    assert again.user_columns == 2


@pytest.mark.parametrize(
    "text", ["", "\n", "userId,movieId,rating,timestamp\n", "userId,movieId,rating,timestamp\n,,,\n"]
)
def test_without_a_usable_record_it_says_so(write, text: str):
    with pytest.raises(ConfigurationError, match=r"no usable record|no column"):
        read_table(write(text), RATINGS)


def test_a_column_that_is_not_there_is_named_with_those_that_are(write):
    with pytest.raises(ConfigurationError, match="no column 'movieId' for item; it has userId, film"):
        read_table(write("userId,film,rating,timestamp\n"), RATINGS)


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(b"userId,movieId,rating,timestamp\n" * 1_000),
        "userId,movieId,rating,timestamp\n".encode("utf-16-le"),
        np.random.default_rng(1).bytes(100_000),
        b"PK\x03\x04" + b"\x00" * 300_000,
    ],
    ids=["gzip", "UTF-16 without its mark", "noise", "zip"],
)
def test_what_is_no_text_is_said_to_be_none_in_a_short_printable_message(write, content: bytes):
    with pytest.raises(ConfigurationError) as refused:
        read_table(write(content), RATINGS)
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 2_000
    assert "no text" in refused.value.hint or "none of a table" in refused.value.message


def test_a_wide_file_does_not_fill_the_terminal(write):
    with pytest.raises(ConfigurationError, match=r"column28, column29, and 970 more$"):
        read_table(write(",".join(f"column{number}" for number in range(1_000)) + "\n"), RATINGS)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_text_with_a_mark_of_its_encoding_is_read(write, encoding: str):
    read = read_table(write("userId,movieId,rating,timestamp\nö,Ω,5,1\n".encode(encoding)), RATINGS)
    assert read.keys[0, 1:].tolist() == [key("user", "ö"), key("item", "Ω")]
    assert read.dropped == {}


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"nothing\.csv cannot be read: No such file"):
        read_table(tmp_path / "nothing.csv", RATINGS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "user=a,item=b,time=c",
        "user=a,item=b,time=c,label=",
        "user=a,item=b,time=c,label=d,label=e",
        "user=a,item=b,time=c,score=d",
        "user=a,item=b,time=c,label=d>=much",
    ],
)
def test_a_wrong_mapping_is_explained_by_an_example(text: str):
    with pytest.raises(ConfigurationError) as refused:
        Columns.parse(text)
    assert "label=rating>=4" in refused.value.hint


def test_labels_are_0_and_1_unless_a_threshold_is_given():
    clicks = Columns.parse("user=u, item=i, time=t, label=c")
    assert [clicks.label_of(text) for text in ("0", "1.0", "3", "-1", "yes")] == [0, 1, None, None, None]
    assert [RATINGS.label_of(text) for text in ("3.5", "4", "nan", "")] == [0, 1, None, None]
