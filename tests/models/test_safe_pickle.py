import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from vggface2_files import python2_pickle

from affectflow.errors import WeightsError
from affectflow.models.safe_pickle import read_array_pickle

ARRAYS = {
    "float32": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4),
    "float16": np.ones(3, np.float16),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "scalar": np.array(3),
    "empty": np.zeros((0, 2)),
    "big endian": np.arange(3, dtype=">f4"),
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_of_every_protocol_are_read(protocol, tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(OrderedDict(ARRAYS), protocol=protocol))
    found = read_array_pickle(tmp_path / "a.pkl")
    for name, wanted in ARRAYS.items():
        np.testing.assert_array_equal(found[name], wanted)
        assert found[name].dtype.newbyteorder("=") == wanted.dtype.newbyteorder("=")


def test_arrays_of_python_2_are_read(tmp_path):
    arrays = {"float32": ARRAYS["float32"], "float16": ARRAYS["float16"]}
    (tmp_path / "a.pkl").write_bytes(python2_pickle(arrays))
    found = read_array_pickle(tmp_path / "a.pkl")
    assert found.keys() == arrays.keys()
    for name, wanted in arrays.items():
        np.testing.assert_array_equal(found[name], wanted)


@pytest.mark.parametrize("old", [b"numpy.core", b"numpy._core"])
def test_both_names_of_numpys_core_are_admitted(old, tmp_path):
    data = pickle.dumps(ARRAYS["float32"], protocol=2).replace(b"numpy._core", old)
    (tmp_path / "a.pkl").write_bytes(data)
    np.testing.assert_array_equal(read_array_pickle(tmp_path / "a.pkl"), ARRAYS["float32"])


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (np.array([{}], dtype=object), "O8"),
        (torch.ones(2), r"torch\._utils\._rebuild_tensor_v2"),
        (np.float32(1), r"numpy\.core\.multiarray\.scalar"),
        (print, r"builtins\.print"),
        (np.array(["a"]), "U1"),
    ],
)
def test_anything_but_arrays_of_numbers_and_containers_is_refused(value, name, tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": value}, protocol=4))
    with pytest.raises(WeightsError, match=rf"a pickle that asks for .*{name}"):
        read_array_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'exit 1'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cnumpy\nndarray\n((I1000000\ntS'f8'\ntR.",  # memory that was never written
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I9\ntS'f8'\ntR.",
        b"c_codecs\nencode\n(S'a'\nS'zip'\ntR.",
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\n__dict__\n.",
        b"P1\n.",
    ],
)
def test_programs_that_ask_for_more_are_refused(program, tmp_path):
    (tmp_path / "a.pkl").write_bytes(program)
    with pytest.raises(WeightsError, match="asks for"):
        read_array_pickle(tmp_path / "a.pkl")
