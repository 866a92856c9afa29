"""What the codes of a file take in it, and what they would take in other coders."""

from pathlib import Path

import constriction
import numpy as np
import onnx
from numpy.typing import NDArray

from autocompress.packing.ledger import read_ledger
from autocompress.packing.packed import read_packed


def coder_bytes(path: Path) -> dict[str, float]:
    """Bytes of all codes of a packed file: in it, by their entropy, in a Huffman code.

    Args:
        path: The file, of a graph whose weights are integers.

    Returns:
        `payload_bytes`: in the file. `est_entropy_bytes`: the zero-order entropy of each tensor,
        without the frequencies that it needs. `huffman_bytes`: each tensor in a Huffman code of its
        own, a byte per letter for the code included. `n_codes`: how many there are.
    """
    ledger = read_ledger(path)
    graph = read_packed(path).graph.graph
    tensors = [onnx.numpy_helper.to_array(initializer) for initializer in graph.initializer]
    codes = [array for array in tensors if array.dtype == np.int8 and array.ndim > 1]
    return {
        "n_codes": sum(array.size for array in codes),
        "payload_bytes": ledger.n_bytes["payload"],
        "est_entropy_bytes": ledger.est_entropy_bytes,
        "huffman_bytes": sum(huffman_bytes(array) for array in codes),
    }


def huffman_bytes(codes: NDArray[np.integer]) -> int:
    """Bytes of a tensor in a Huffman code made for it: the bits, and a length per letter."""
    letters, symbols, counts = np.unique(codes, return_inverse=True, return_counts=True)
    if len(letters) == 1:
        return 1
    tree = constriction.symbol.huffman.EncoderHuffmanTree(counts / counts.sum())
    encoder = constriction.symbol.QueueEncoder()
    for symbol in symbols.ravel():
        encoder.encode_symbol(int(symbol), tree)
    _, n_bits = encoder.get_compressed()
    return -(-n_bits // 8) + len(letters)
