//! Containers around an input, whose checksums no mutation would get right.

/// Remainders of CRC-32 by byte.
const REMAINDERS: [u32; 256] = {
    let mut remainders = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            remainder = (remainder >> 1) ^ (0xedb8_8320 * (remainder & 1));
            bit += 1;
        }
        remainders[byte] = remainder;
        byte += 1;
    }
    remainders
};

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| (crc >> 8) ^ REMAINDERS[usize::from(crc as u8 ^ byte)];
    !bytes.iter().fold(!0, step)
}

/// A zip archive of entries that are not compressed.
pub fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut list) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let start = out.len() as u32;
        // Version 2.0, no flags, stored, no time; checksum, two sizes, lengths of the name and of nothing.
        let mut fields = vec![20u8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        fields.extend(crc32(content).to_le_bytes());
        fields.extend([content.len() as u32; 2].map(u32::to_le_bytes).concat());
        fields.extend((name.len() as u32).to_le_bytes());
        out.extend([&b"PK\x03\x04"[..], &fields, name.as_bytes(), content].concat());
        // Made by version 2.0; no comment, disk 0, no attributes.
        let behind = [&[0u8; 10][..], &start.to_le_bytes()].concat();
        list.extend([&b"PK\x01\x02\x14\0"[..], &fields, &behind, name.as_bytes()].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let sizes = [list.len() as u32, out.len() as u32].map(u32::to_le_bytes).concat();
    out.extend(list);
    out.extend([&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &sizes, &[0u8; 2]].concat());
    out
}

/// A tar archive with the right checksum in every header, also in those of archives inside.
pub fn with_checksums(archive: &[u8]) -> Vec<u8> {
    const FIELD: std::ops::Range<usize> = 148..156;
    let mut archive = archive.to_vec();
    for header in archive.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
        header[FIELD].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[FIELD].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    archive
}
