//! nginx's `hash KEY` and `ip_hash`: the key's number falls into the share of one member.
//!
//! Weights are shares, and a member that is out of service keeps its share: its keys alone go elsewhere meanwhile.

use std::net::IpAddr;

use super::Member;
use crate::pool::endpoint::Endpoint;

/// Tries to find a candidate by the key; then it is anybody's.
pub(super) const TRIES: u32 = 20;

/// Where each member's share ends.
#[derive(Debug, Default)]
pub(in crate::pool) struct Shares {
    ends: Vec<u64>,
    /// The members by number, where there are not too many numbers: one look instead of a search.
    places: Vec<u16>,
}

/// As long as there are fewer numbers, each has an entry of its own.
const MOST_NUMBERS: u64 = 1 << 16;

impl Shares {
    pub(in crate::pool) fn align(&mut self, members: &[Member]) {
        let mut end = 0;
        self.ends = members
            .iter()
            .map(|member| {
                end += u64::from(member.weight);
                end
            })
            .collect();
        let each = members.iter().zip(0_u16..);
        self.places = match end {
            // Weights are 1 at least, so there are not more places than numbers.
            ..MOST_NUMBERS => each.flat_map(|(one, place)| std::iter::repeat_n(place, one.weight as usize)).collect(),
            _ => Vec::new(),
        };
    }

    /// `ngx_http_upstream_get_ip_hash_peer`: the first three bytes of an IPv4 address, all of an IPv6 one.
    pub(in crate::pool) fn pick_by_address(
        &self,
        members: &[Member],
        address: IpAddr,
        candidate: impl Fn(&Endpoint) -> bool,
    ) -> Option<usize> {
        let (four, six);
        let bytes: &[u8] = match address {
            IpAddr::V4(address) => {
                four = address.octets();
                &four[..3]
            }
            IpAddr::V6(address) => {
                six = address.octets();
                &six
            }
        };
        let mut hash = 89_u64;
        (0..TRIES).find_map(|_| {
            hash = bytes.iter().fold(hash, |hash, byte| (hash * 113 + u64::from(*byte)) % 6271);
            self.at(hash).filter(|place| candidate(&members[*place].endpoint))
        })
    }

    /// `ngx_http_upstream_get_hash_peer`, which is that of Cache::Memcached: CRC-32 of the key, after a number at
    /// each further try.
    pub(in crate::pool) fn pick_by_key(
        &self,
        members: &[Member],
        key: &[u8],
        candidate: impl Fn(&Endpoint) -> bool,
    ) -> Option<usize> {
        let mut sum = 0_u64;
        (0..TRIES).find_map(|number| {
            let mut hash = crc32fast::Hasher::new();
            if number > 0 {
                hash.update(number.to_string().as_bytes());
            }
            hash.update(key);
            sum += u64::from((hash.finalize() >> 16) & 0x7fff);
            self.at(sum).filter(|place| candidate(&members[*place].endpoint))
        })
    }

    fn at(&self, number: u64) -> Option<usize> {
        let wanted = number.checked_rem(*self.ends.last()?)?;
        if let Some(place) = self.places.get(wanted as usize) {
            return Some(usize::from(*place));
        }
        Some(self.ends.partition_point(|end| *end <= wanted))
    }
}
