"""Compressed answers that keep no memory: Brotli's encoder goes with the answer that it wrote."""

from __future__ import annotations

from litestar.config.compression import CompressionConfig
from litestar.middleware.compression.brotli_facade import BrotliCompression


class Brotli(BrotliCompression):
    """Litestar's, which is part of a cycle: its encoder, half a megabyte, would wait for the garbage collector."""

    def close(self) -> None:
        super().close()
        del self.compressor


COMPRESSION = CompressionConfig(
    backend="brotli of its own",  # any name that Litestar does not know leaves it the class below
    compression_facade=Brotli,
    brotli_quality=4,
    brotli_lgwin=18,
    gzip_compress_level=5,
    exclude=["^/static/"],
)
