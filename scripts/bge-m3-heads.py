#!/usr/bin/env python3
"""Makes the files of BGE-M3's heads that llamagate reads out of those that are published.

    bge-m3-heads.py FOLDER [OUTPUT_FOLDER]

FOLDER has sparse_linear.pt and colbert_linear.pt, as in the repository BAAI/bge-m3:

    hf download BAAI/bge-m3 sparse_linear.pt colbert_linear.pt --local-dir bge-m3

For each of the two that is there, a file .safetensors is written, beside it or into OUTPUT_FOLDER. A model gets them by its
setting `heads: {sparse: sparse_linear.safetensors, colbert: colbert_linear.safetensors}`.

Needs Python 3.9 or newer and nothing else, PyTorch least of all. A .pt file is a zip archive with a pickle, and a pickle can
name any function of Python; here it can name only those that a tensor of floats is made with.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple, NoReturn

HEADS = ("sparse_linear", "colbert_linear")
# By the name of PyTorch's class: what safetensors calls the type, and the bytes of a number.
TYPES = {"FloatStorage": ("F32", 4), "HalfStorage": ("F16", 2), "BFloat16Storage": ("BF16", 2)}
MOST_BYTES = 80 * 1024 * 1024  # the largest head that llamagate reads


class Unusable(Exception):
    """Why a file cannot be converted."""


class Storage(NamedTuple):
    """The numbers of a tensor, as a pickle names them."""

    dtype: str
    number_bytes: int
    key: str


class Tensor(NamedTuple):
    dtype: str
    shape: list[int]
    data: bytes


class TensorUnpickler(pickle.Unpickler):
    """Reads a dictionary of tensors, and calls no function but its own."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(read(archive, f"{root}/data.pkl")))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self.tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and name in TYPES:
            return name
        raise Unusable(f"it names {module}.{name}, which a layer of floats does not need")

    def persistent_load(self, pid: object) -> Storage:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or pid[1] not in TYPES:
            raise Unusable("it names numbers in a way that is not known")
        dtype, number_bytes = TYPES[pid[1]]
        return Storage(dtype, number_bytes, str(pid[2]))

    def tensor(self, storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
        rows_first = [math.prod(shape[at + 1 :]) for at in range(len(shape))]
        # A dimension of one number has no stride that matters.
        if any(size > 1 and step != row for size, step, row in zip(shape, stride, rows_first)):
            raise Unusable("it has a tensor that is not stored row by row")
        data = read(self.archive, f"{self.root}/data/{storage.key}")
        begin = offset * storage.number_bytes
        end = begin + math.prod(shape) * storage.number_bytes
        if offset < 0 or end > len(data):
            raise Unusable("it has a tensor with fewer numbers than its shape")
        return Tensor(storage.dtype, list(shape), data[begin:end])


def read(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > MOST_BYTES:
        raise Unusable(f"its part {name} has more than {MOST_BYTES} bytes")
    return archive.read(name)


def tensors_of(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a .pt file by name."""
    try:
        with zipfile.ZipFile(path) as archive:
            roots = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(roots) != 1:
                raise Unusable("it has no data.pkl, so PyTorch has not written it")
            if f"{roots[0]}/byteorder" in archive.namelist() and read(archive, f"{roots[0]}/byteorder") != b"little":
                raise Unusable("its numbers are in another order of bytes than little-endian")
            tensors = TensorUnpickler(archive, roots[0]).load()
    except zipfile.BadZipFile as error:
        raise Unusable("it is no zip archive; files that PyTorch before 1.6 wrote must be saved again by a newer one") from error
    except (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Unusable(f"its pickle cannot be read: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise Unusable("it is no dictionary of tensors")
    missing = {"weight", "bias"} - tensors.keys()
    if missing:
        raise Unusable(f"it has no tensor {sorted(missing)[0]!r}: it has {', '.join(sorted(map(str, tensors))) or 'none'}")
    return {name: tensors[name] for name in ("weight", "bias")}


def safetensors_of(tensors: dict[str, Tensor]) -> bytes:
    header, data = {}, b""
    for name, tensor in tensors.items():
        offsets = [len(data), len(data) + len(tensor.data)]
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}
        data += tensor.data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text + data


def fail(message: str) -> NoReturn:
    sys.exit(f"bge-m3-heads.py: {message}")


def main() -> None:
    arguments = sys.argv[1:]
    if len(arguments) not in (1, 2) or arguments[0] in ("-h", "--help"):
        print(__doc__.strip(), file=sys.stderr)
        sys.exit(0 if arguments[:1] in (["-h"], ["--help"]) else 2)
    source, target = Path(arguments[0]), Path(arguments[-1])
    found = [source / f"{head}.pt" for head in HEADS if (source / f"{head}.pt").is_file()]
    if not found:
        fail(f"there is neither {HEADS[0]}.pt nor {HEADS[1]}.pt in {source}")
    for path in found:
        try:
            converted = safetensors_of(tensors_of(path))
        except Unusable as problem:
            fail(f"{path} cannot be converted: {problem}")
        except OSError as error:
            fail(f"{path} cannot be read: {error}")
        written = target / f"{path.stem}.safetensors"
        try:
            target.mkdir(parents=True, exist_ok=True)
            written.write_bytes(converted)
        except OSError as error:
            fail(f"{written} cannot be written: {error}")
        print(written)


if __name__ == "__main__":
    main()
