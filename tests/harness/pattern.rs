//! The bytes the demo worker's `/bytes` gives: lines of 16 bytes that name their own offset.

/// The first `length` of them.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..length).step_by(16).flat_map(|offset| format!("{offset:015x}\n").into_bytes()).collect();
    bytes.truncate(length);
    bytes
}

/// A hash that tells bodies apart (FNV-1a, 64 bits). No defence against anybody.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_pattern_of_the_demo_worker() {
        assert_eq!(pattern(40), b"000000000000000\n000000000000010\n00000000");
    }

    #[test]
    fn hash_is_fnv_1a() {
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
