//! Compression as Kafka does it. gzip and snappy are real; lz4 and zstd are valid frames whose
//! blocks are stored as they are, since nothing that this broker is for has to shrink them.

use std::io::{Read, Write};

use super::Codec;

/// The head of xerial's snappy framing: magic, version 1, compatible with 1.
const XERIAL: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
/// xerial's default block size in bytes.
const XERIAL_BLOCK: usize = 32 * 1024;
/// The head of an lz4 frame: magic, version 1 with independent blocks of up to 64 KiB, checksum.
const LZ4: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
const LZ4_BLOCK: usize = 64 * 1024;
/// The bit in a block's length that says that it is stored.
const LZ4_STORED: u32 = 0x8000_0000;
/// The head of a zstd frame: magic, no content size, a window of 128 KiB.
const ZSTD: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
const ZSTD_BLOCK: usize = 128 * 1024;

/// Bytes that are not what their codec makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Undecodable;

pub(super) fn compress(codec: Codec, plain: Vec<u8>) -> Vec<u8> {
    match codec {
        Codec::None => plain,
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            // Writing to a Vec cannot fail; if it did, the empty payload would fail every reader.
            encoder.write_all(&plain).and_then(|()| encoder.finish()).unwrap_or_default()
        }
        Codec::Snappy => {
            let mut out = XERIAL.to_vec();
            for block in plain.chunks(XERIAL_BLOCK) {
                // Fails only for blocks of 4 GiB.
                let packed = snap::raw::Encoder::new().compress_vec(block).unwrap_or_default();
                out.extend_from_slice(&super::encode::length(packed.len()).to_be_bytes());
                out.extend_from_slice(&packed);
            }
            out
        }
        Codec::Lz4 => {
            let mut out = LZ4.to_vec();
            for block in plain.chunks(LZ4_BLOCK) {
                out.extend_from_slice(&(block.len() as u32 | LZ4_STORED).to_le_bytes());
                out.extend_from_slice(block);
            }
            out.extend_from_slice(&[0; 4]);
            out
        }
        Codec::Zstd => {
            let mut out = ZSTD.to_vec();
            let blocks = plain.chunks(ZSTD_BLOCK).count();
            for (index, block) in plain.chunks(ZSTD_BLOCK).enumerate() {
                let header = ((block.len() as u32) << 3) | u32::from(index + 1 == blocks);
                out.extend_from_slice(&header.to_le_bytes()[..3]);
                out.extend_from_slice(block);
            }
            out
        }
    }
}

/// For what clients produce: gzip, snappy with or without xerial's framing.
pub(super) fn decompress(codec: Codec, packed: &[u8], limit: usize) -> Result<Vec<u8>, Undecodable> {
    match codec {
        Codec::None => Ok(packed.to_vec()),
        Codec::Gzip => {
            let mut out = Vec::new();
            let read = flate2::read::MultiGzDecoder::new(packed).take(limit as u64 + 1).read_to_end(&mut out);
            if read.is_err() || out.len() > limit { Err(Undecodable) } else { Ok(out) }
        }
        Codec::Snappy => match packed.strip_prefix(&XERIAL) {
            None => unsnap(packed, limit),
            Some(mut rest) => {
                let mut out = Vec::new();
                while let Some((size, behind)) = rest.split_first_chunk() {
                    let size = u32::from_be_bytes(*size) as usize;
                    let block = behind.get(..size).ok_or(Undecodable)?;
                    out.extend(unsnap(block, limit.saturating_sub(out.len()))?);
                    rest = &behind[size..];
                }
                Ok(out)
            }
        },
        Codec::Lz4 | Codec::Zstd => Err(Undecodable),
    }
}

fn unsnap(block: &[u8], limit: usize) -> Result<Vec<u8>, Undecodable> {
    match snap::raw::decompress_len(block) {
        Ok(size) if size <= limit => snap::raw::Decoder::new().decompress_vec(block).map_err(|_| Undecodable),
        _ => Err(Undecodable),
    }
}
