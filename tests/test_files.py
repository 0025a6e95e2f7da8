"""Files are read up to a size, packed or not."""

import gzip

import pytest

from skrobust._files import read_limited

DATA = bytes(range(256)) * 8


def test_packed_files_have_the_bytes_of_plain_ones(tmp_path):
    plain, packed = tmp_path / "a.bin", tmp_path / "a.bin.gz"
    plain.write_bytes(DATA)
    packed.write_bytes(gzip.compress(DATA))
    assert read_limited(plain, len(DATA)) == read_limited(packed, len(DATA)) == DATA


@pytest.mark.parametrize("name", ["a.bin", "a.bin.gz"])
def test_what_is_larger_is_refused_by_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(DATA) if name.endswith(".gz") else DATA)
    with pytest.raises(ValueError, match=rf"{name}.*at most {len(DATA) - 1} bytes"):
        read_limited(path, len(DATA) - 1)


def test_a_small_file_that_unpacks_to_much_is_not_unpacked(tmp_path):
    path = tmp_path / "zeros.gz"
    path.write_bytes(gzip.compress(bytes(2**26)))
    assert path.stat().st_size < 2**17
    with pytest.raises(ValueError, match="at most 1024 bytes"):
        read_limited(path, 1024)


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"no gzip",
                                    lambda data: data[:20] + b"\xff\xff" + data[22:]])  # fmt: skip
def test_a_broken_file_is_named(tmp_path, damage):
    path = tmp_path / "broken.gz"
    path.write_bytes(damage(gzip.compress(DATA)))
    with pytest.raises(ValueError, match=r"broken\.gz, which gzip cannot unpack"):
        read_limited(path, 10**6)
