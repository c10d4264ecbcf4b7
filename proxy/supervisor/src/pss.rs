//! The share of memory that processes have for themselves: pages that several have count for each in part, so that the sum
//! over workers is what they take together. Costly for large processes (the kernel walks their pages), so not for every look.

use std::collections::BTreeMap;
use std::fs;

use crate::usage::trees;

/// Bytes of each root with all that descends from it; where the kernel does not tell, resident memory stands in, which is
/// more. Roots that do not exist are not listed.
#[must_use]
pub fn pss_of_trees(roots: &[u32]) -> BTreeMap<u32, u64> {
    let sum = |members: Vec<(u32, u64)>| members.iter().map(|(pid, rss)| pss(*pid).unwrap_or(*rss)).sum();
    trees(roots).into_iter().map(|(root, members)| (root, sum(members))).collect()
}

fn pss(pid: u32) -> Option<u64> {
    parse(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

fn parse(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_all_mappings_is_found() {
        let text = "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:    3000 kB\nPss:    1500 kB\nPss_Dirty:  1200 kB\n";
        assert_eq!((parse(text), parse("Rss: 1 kB\n")), (Some(1_500 * 1_024), None));
    }

    #[test]
    fn our_own_share_is_plausible_and_nobody_has_none() {
        let own = std::process::id();
        let shares = pss_of_trees(&[own, u32::MAX]);
        assert_eq!(shares.len(), 1);
        let rss = crate::usage::usage_of_trees(&[own])[&own].rss_bytes;
        assert!(shares[&own] > 100_000 && shares[&own] <= rss + rss / 2, "{shares:?} of {rss}");
        assert!(pss_of_trees(&[]).is_empty());
    }
}
